"""An EPUB's own table of contents: the navigation document of EPUB 3, the NCX of EPUB 2."""

from collections.abc import Iterator
from dataclasses import dataclass

from longfocus.reading.documents.epub_archive import linked_path
from longfocus.reading.documents.markup import Element, inner_text, local_attribute, local_name


@dataclass(frozen=True)
class ContentsEntry:
    """A line of the table of contents: `depth` from 1, and the page and the anchor in it that it points at."""

    depth: int
    label: str
    path: str
    fragment: str


def navigation_entries(root: Element, place: str) -> list[ContentsEntry]:
    """The entries of a navigation document that stands at `place` in the archive."""
    navs = [element for element in root.iter() if local_name(element) == "nav"]
    toc = [nav for nav in navs if "toc" in local_attribute(nav, "type").split()] or navs
    lists = [child for child in toc[0] if local_name(child) == "ol"] if toc else []
    return [entry for child in lists for entry in _list_entries(child, place, 1)]


def ncx_entries(root: Element, place: str) -> list[ContentsEntry]:
    """The entries of an NCX document that stands at `place` in the archive."""
    maps = [element for element in root.iter() if local_name(element) == "navmap"]
    return list(_point_entries(maps[0], place, 1)) if maps else []


def _list_entries(element: Element, place: str, depth: int) -> Iterator[ContentsEntry]:
    for item in element:
        if local_name(item) != "li":
            continue
        children = {local_name(child): child for child in reversed(item)}
        label = children.get("a", children.get("span"))
        nested = list(_list_entries(children["ol"], place, depth + 1)) if "ol" in children else []
        link = label.get("href") if label is not None else None
        yield from _entry(depth, "" if label is None else inner_text(label), link, place, nested)
        yield from nested


def _point_entries(element: Element, place: str, depth: int) -> Iterator[ContentsEntry]:
    for point in element:
        if local_name(point) != "navpoint":
            continue
        labels = [inner_text(child) for child in point if local_name(child) == "navlabel"]
        links = [child.get("src") for child in point if local_name(child) == "content"]
        nested = list(_point_entries(point, place, depth + 1))
        yield from _entry(depth, labels[0] if labels else "", links[0] if links else None, place, nested)
        yield from nested


def _entry(
    depth: int, label: str, link: str | None, place: str, nested: list[ContentsEntry]
) -> Iterator[ContentsEntry]:
    target = linked_path(place, link) if link else None
    if label and target:
        yield ContentsEntry(depth, label, *target)
    elif label and nested:
        # A part's name without a link of its own stands where its first chapter does.
        yield ContentsEntry(depth, label, nested[0].path, nested[0].fragment)
