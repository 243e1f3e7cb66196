"""Text from outside, made harmless for a terminal."""

import unicodedata

_HARMLESS = {"\n", "\t"}
_LAYOUT = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


def plain(text: str) -> str:
    """`text` with � in place of what could move the cursor, colour the screen or turn the direction of writing.

    A title, an error message and a book's own words may hold whatever a file held.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join("�" if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return character in _LAYOUT or (unicodedata.category(character) == "Cc" and character not in _HARMLESS)
