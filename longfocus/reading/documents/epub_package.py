"""An EPUB's package document: the book's title, its pages in reading order, and where its contents are listed."""

from dataclasses import dataclass

from longfocus.reading.documents.epub_archive import EpubArchive, linked_path
from longfocus.reading.documents.markup import Element, inner_text, local_name, parse_xml
from longfocus.reading.documents.source import refusal

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGE_TYPES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")
_NCX_TYPE = "application/x-dtbncx+xml"
# These veil fonts only; the text is free.
_FONT_VEILS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


@dataclass(frozen=True)
class Package:
    """What the package document says: `pages`, `navigation` (EPUB 3) and `ncx` (EPUB 2) are paths in the archive."""

    title: str | None
    pages: tuple[str, ...]
    navigation: str | None
    ncx: str | None


@dataclass(frozen=True)
class _Item:
    link: str
    media_type: str
    properties: tuple[str, ...]


def read_package(archive: EpubArchive) -> Package:
    """Read the container and the package document, and note in the archive which documents are locked."""
    if _CONTAINER not in archive:
        raise refusal(archive.path, f"it has no {_CONTAINER}, so it is not an EPUB. Check the file.")
    if _ENCRYPTION in archive:
        archive.locked = _locked(_parse(archive, _ENCRYPTION))
    roots = [element.get("full-path", "") for element in _all(_parse(archive, _CONTAINER), "rootfile")]
    if not roots:
        raise refusal(archive.path, f"its {_CONTAINER} names no package document. Fetch the file again.")
    place = _inside(archive, "", roots[0])
    root = _parse(archive, place)
    items = {item.get("id", ""): _item(item) for item in _all(root, "item")}
    spines = _all(root, "spine")
    if not spines:
        raise refusal(archive.path, "its package document has no spine (reading order). Fetch the file again.")
    ncx = [items[key] for key in [spines[0].get("toc", "")] if key in items]
    ncx += [item for item in items.values() if item.media_type == _NCX_TYPE]
    navigation = [item for item in items.values() if "nav" in item.properties]
    return Package(
        title=next((text for element in _all(root, "title") if (text := inner_text(element))), None),
        pages=_pages(archive, place, items, spines[0]),
        navigation=_inside(archive, place, navigation[0].link) if navigation else None,
        ncx=_inside(archive, place, ncx[0].link) if ncx else None,
    )


def _pages(archive: EpubArchive, place: str, items: dict[str, _Item], spine: Element) -> tuple[str, ...]:
    pages = []
    for key in (reference.get("idref", "") for reference in _all(spine, "itemref")):
        item = items.get(key)
        if item is None:
            raise refusal(archive.path, f"its spine names {key[:100]!r}, which its package does not list.")
        # The navigation page only repeats the chapters' names.
        if item.media_type in _PAGE_TYPES and "nav" not in item.properties:
            pages.append(_inside(archive, place, item.link))
    if not pages:
        raise refusal(archive.path, "its spine lists no pages of text. Give an edition with text.")
    return tuple(dict.fromkeys(pages))


def _item(element: Element) -> _Item:
    media_type = element.get("media-type", "").strip().lower()
    return _Item(element.get("href", ""), media_type, tuple(element.get("properties", "").split()))


def _inside(archive: EpubArchive, base: str, link: str) -> str:
    target = linked_path(base, link)
    if target is None:
        raise refusal(archive.path, f"it links to a document outside itself ({link[:200]!r}). Do not trust it.")
    # Some books forget that links are percent-encoded and names in the archive are not.
    path = target[0]
    return link if path not in archive and link in archive else path


def _locked(encryption: Element) -> frozenset[str]:
    """Paths of the documents that the encryption document names, fonts under a veil aside."""
    locked: set[str] = set()
    for data in _all(encryption, "encrypteddata"):
        methods = [method.get("Algorithm", "") for method in _all(data, "encryptionmethod")]
        if methods and methods[0] in _FONT_VEILS:
            continue
        targets = (linked_path("", reference.get("URI", "")) for reference in _all(data, "cipherreference"))
        locked.update(target[0] for target in targets if target)
    return frozenset(locked)


def _parse(archive: EpubArchive, name: str) -> Element:
    return parse_xml(archive.read(name, "a document that an EPUB needs"), archive.path, f"{name[:200]} inside it")


def _all(root: Element, name: str) -> list[Element]:
    """All elements of this name inside the root, the root included, whatever their namespace."""
    return [element for element in root.iter() if local_name(element) == name]
