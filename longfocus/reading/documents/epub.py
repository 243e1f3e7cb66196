"""EPUB books, versions 2 and 3: the pages of the spine as one text, chapters by the book's own table of contents.

Books under digital rights management are refused, not broken into.
"""

from pathlib import Path

from longfocus.reading.documents.document import Document
from longfocus.reading.documents.epub_archive import EpubArchive
from longfocus.reading.documents.epub_contents import ContentsEntry, navigation_entries, ncx_entries
from longfocus.reading.documents.epub_package import Package, read_package
from longfocus.reading.documents.flow import Flow, flow_of
from longfocus.reading.documents.gutenberg import body_of
from longfocus.reading.documents.markup import parse_xhtml, parse_xml
from longfocus.reading.documents.outline import Heading, chapter_sections
from longfocus.reading.documents.source import file_stem, refusal

_BETWEEN_PAGES = "\n\n"


def read_epub(path: Path) -> Document:
    """Read an EPUB file. `text` is the text shown by its pages in reading order, separated by blank lines."""
    with EpubArchive(path) as archive:
        package = read_package(archive)
        pages = {name: _page(archive, name) for name in package.pages}
        entries = _contents(archive, package)
    text, starts = _one_text(pages)
    if not text:
        raise refusal(path, "its pages hold no text (they may be pictures). Give an edition with text.")
    body = body_of(text)
    headings = _headings(pages, starts, entries)
    return Document(package.title or file_stem(path), text, body, chapter_sections(headings, body))


def _page(archive: EpubArchive, name: str) -> Flow:
    data = archive.read(name, "a page of the book")
    return flow_of(parse_xhtml(data, archive.path)) if data.strip() else Flow("", (), {})


def _contents(archive: EpubArchive, package: Package) -> list[ContentsEntry]:
    """The entries of the navigation document, or else of the NCX; none where the book has neither."""
    path, entries = archive.path, []
    if package.navigation and package.navigation in archive:
        root = parse_xhtml(archive.read(package.navigation, "the navigation document"), path)
        entries = navigation_entries(root, package.navigation)
    if not entries and package.ncx and package.ncx in archive:
        root = parse_xml(archive.read(package.ncx, "the table of contents"), path, "its table of contents")
        entries = ncx_entries(root, package.ncx)
    return entries


def _one_text(pages: dict[str, Flow]) -> tuple[str, dict[str, int]]:
    """All pages as one text, and where each starts; a page without text starts where the next does."""
    pieces: list[str] = []
    starts: dict[str, int] = {}
    length = 0
    for name, flow in pages.items():
        starts[name] = length
        if flow.text:
            pieces.append(flow.text)
            length += len(flow.text) + len(_BETWEEN_PAGES)
    return _BETWEEN_PAGES.join(pieces), starts


def _headings(pages: dict[str, Flow], starts: dict[str, int], entries: list[ContentsEntry]) -> list[Heading]:
    """The book's contents, or its pages' headings, or its pages by number: the first that tells places apart."""
    contents = [
        Heading(entry.depth, entry.label, starts[entry.path] + pages[entry.path].anchors.get(entry.fragment, 0))
        for entry in entries
        if entry.path in pages
    ]
    headed = [
        Heading(heading.level, heading.label, starts[name] + heading.start)
        for name, flow in pages.items()
        for heading in flow.headings
    ]
    filled = [name for name, flow in pages.items() if flow.text]
    numbered = [Heading(1, f"Section {number}", starts[name]) for number, name in enumerate(filled, 1)]
    choices = (contents, headed, numbered)
    several = (choice for choice in choices if len({heading.start for heading in choice}) > 1)
    return next(several, None) or next(choice for choice in choices if choice)
