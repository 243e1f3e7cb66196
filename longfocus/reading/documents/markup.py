"""From HTML or XML bytes to a tree, safely: no network, no entities of the document's own, bounded depth and size.

Declarations that could define entities are cut out before parsing, so none can expand or open a file.
"""

import codecs
import html.entities
import re
from pathlib import Path
from typing import Any, TypeAlias

from lxml import etree  # type: ignore[import-untyped]

from longfocus.reading.documents.decoding import decode_text, marked_encoding
from longfocus.reading.documents.source import refusal

Element: TypeAlias = Any
"""An lxml element; lxml comes without types."""

_HEAD_BYTES = 4096
_META_CHARSET = re.compile(rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
_XML_ENCODING = re.compile(rb"<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]{2,40})", re.I)
# Others that Python knows are no character sets of web pages, or announce themselves by a byte order mark.
_CHARSETS = re.compile(
    r"utf-8|iso8859-\d+|cp125\d|cp866|cp874|cp932|cp949|koi8-[ru]|mac-(roman|cyrillic)"
    r"|gbk|gb2312|gb18030|big5(hkscs)?|euc_(jp|kr)|shift_jis|iso2022_jp"
)
_DOCTYPE = re.compile(r"<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>", re.I | re.S)
_NAMED_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31};)")
_XML_ENTITIES = frozenset({"amp;", "lt;", "gt;", "quot;", "apos;"})


def parse_html(data: bytes, path: Path) -> Element:
    """Root of a page's tree, mended as browsers do; DocumentError for binary data and for what has no elements."""
    return _html_root(_markup_text(data, path), path)


def parse_xhtml(data: bytes, path: Path) -> Element:
    """Root of an XHTML page's tree, read as XML, or mended like HTML where it is not well formed."""
    text = _markup_text(data, path)
    try:
        return _xml_root(text, path)
    except etree.XMLSyntaxError:
        return _html_root(text, path)


def parse_xml(data: bytes, path: Path, what: str) -> Element:
    """Root of an XML document's tree; DocumentError, naming `what`, where it is not well formed."""
    try:
        return _xml_root(_markup_text(data, path), path)
    except etree.XMLSyntaxError as error:
        raise refusal(path, f"{what} is not well-formed XML. Fetch the file again.") from error


def local_name(element: Element) -> str:
    """The element's name in lower case without its namespace; "" for what is no element."""
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def local_attribute(element: Element, name: str) -> str:
    """The attribute of this name whatever its namespace; "" where there is none."""
    return next((str(value) for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")


def inner_text(element: Element) -> str:
    """All text inside the element on one line, white space collapsed."""
    return " ".join("".join(element.itertext()).split())


def _markup_text(data: bytes, path: Path) -> str:
    text = decode_text(data, path, marked_encoding(data) or _declared_encoding(data)).lstrip("\ufeff")
    # At most one document type is cut, at the place of the first: a search for more could take quadratic time.
    start = re.search("<!DOCTYPE", text, re.I)
    doctype = _DOCTYPE.match(text, start.start()) if start else None
    return text[: doctype.start()] + text[doctype.end() :] if doctype else text


def _declared_encoding(data: bytes) -> str | None:
    """The encoding that the document names in its head, where it is a usable one and the bytes are valid in it."""
    head = data[:_HEAD_BYTES]
    match = _XML_ENCODING.match(head.lstrip()) or _META_CHARSET.search(head)
    if match is None:
        return None
    try:
        name = codecs.lookup(match[1].decode("ascii")).name
        # As in browsers, the names of Latin-1 and ASCII stand for Windows-1252, which extends both.
        name = {"iso8859-1": "cp1252", "ascii": "cp1252"}.get(name, name)
        if not _CHARSETS.fullmatch(name):
            return None
        data.decode(name)
    except (LookupError, ValueError):
        return None
    return name


def _xml_root(text: str, path: Path) -> Element:
    """Root of the tree by the XML parser; etree.XMLSyntaxError where the text is not well formed."""
    # Names such as &nbsp; belong to HTML's document type, which is cut out like any other.
    text = _NAMED_ENTITY.sub(_character, text)
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(text.encode("utf-8"), parser)
    except etree.XMLSyntaxError:
        _require_whole(parser, path)
        raise


def _html_root(text: str, path: Path) -> Element:
    parser = etree.HTMLParser(
        encoding="utf-8", recover=True, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(text.encode("utf-8"), parser)
    except etree.XMLSyntaxError:
        root = None
    _require_whole(parser, path)
    if root is None:
        raise refusal(path, "no elements of a page were found in it. Check that it is an HTML document.")
    return root


def _require_whole(parser: Any, path: Path) -> None:
    # At such a limit the parser stops and keeps what came before: a text cut short without a word.
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise refusal(path, "its markup is nested too deeply or holds too large a piece. Save it as plain text.")


def _character(match: re.Match[str]) -> str:
    name = match[1]
    return match[0] if name in _XML_ENTITIES else html.entities.html5.get(name, match[0])
