"""HTML pages: the text that a browser would show, chapters by the headings h1 to h3."""

import re
from pathlib import Path

from longfocus.reading.documents.document import Document
from longfocus.reading.documents.flow import flow_of, page_title
from longfocus.reading.documents.gutenberg import body_of, title_of
from longfocus.reading.documents.markup import parse_html, parse_xhtml
from longfocus.reading.documents.outline import chapter_sections
from longfocus.reading.documents.source import file_stem, read_bytes, refusal

_XHTML = re.compile(rb"<\?xml\s|http://www\.w3\.org/1999/xhtml")


def read_html(path: Path) -> Document:
    """Read an HTML or XHTML file. `text` is the text shown, not the file's characters; scripts are not run."""
    data = read_bytes(path)
    is_xhtml = path.suffix.lower() == ".xhtml" or _XHTML.search(data[:1024])
    root = (parse_xhtml if is_xhtml else parse_html)(data, path)
    flow = flow_of(root)
    if not flow.text:
        raise refusal(path, "the page shows no text (it may be filled in by a script). Save it from a browser as text.")
    body = body_of(flow.text)
    title = title_of(flow.text, body[0]) or page_title(root) or file_stem(path)
    return Document(title, flow.text, body, chapter_sections(flow.headings, body))
