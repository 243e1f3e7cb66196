"""Lines of a PDF's page as running text: words broken at a line's end made whole, lines of a paragraph joined.

A PDF knows lines, not paragraphs. The rule is plain: a line break stays where the next word would still have fitted
on the line (so it was meant), and at blank lines; elsewhere it becomes a space.
"""

import re
from collections.abc import Iterable, Sequence
from math import ceil

_WORD = re.compile(r"[^\W\d_]+")
_LONGEST_WORD = 100
_WIDTH_SHARE = 0.9
"""The share of lines that the text's width covers: headings and captions may be longer."""
_FIT_SHARE = 0.85
"""Letters differ in width: a word counts as fitting only where it ends well before the text's width."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def page_lines(text: str) -> list[str]:
    """The page's lines, white space collapsed, without characters that no text should hold."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").split("\n")
    return [" ".join(_CONTROLS.sub("", line).split()) for line in lines]


class ParagraphJoiner:
    """Joins the lines of one document's pages; it learns the text's width and words from all of them first."""

    def __init__(self, pages: Iterable[Sequence[str]]) -> None:
        lengths: list[int] = []
        self._words: set[str] = set()
        for line in (line for page in pages for line in page if line):
            lengths.append(len(line))
            # A broken word's pieces are no evidence for words of their own.
            whole = line.rpartition(" ")[0] if _broken_word(line) else line
            self._words.update(word.lower() for word in _WORD.findall(whole))
        lengths.sort()
        self._width = lengths[ceil(_WIDTH_SHARE * (len(lengths) - 1))] if lengths else 0

    def joined(self, lines: Sequence[str]) -> str:
        """The page's text: paragraphs on lines of their own, blank lines kept as one."""
        pieces: list[str] = []  # what stands between two of them is a piece of its own
        last = ""  # the line before, as it stood on the page
        for line in lines:
            if not line:
                if last:
                    pieces.append("\n\n")
            elif not last:
                pieces.append(line)
            elif last.endswith("\xad"):
                pieces[-1] = pieces[-1][:-1] + line
            elif _broken_word(last) and line[0].islower():
                pieces[-1] = self._mended(pieces[-1], line)
            else:
                first_word = line.split(" ", 1)[0]
                meant = len(last) + 1 + len(first_word) <= _FIT_SHARE * self._width
                pieces += ("\n" if meant else " ", line)
            last = line
        return "".join(pieces).strip()

    def _mended(self, text: str, line: str) -> str:
        """Both parts of a word joined; without the hyphen only where the whole word occurs elsewhere."""
        after = _WORD.match(line)
        whole = (_broken_word(text) + after[0]).lower() if after else ""
        return (text[:-1] if whole in self._words else text) + line


def _broken_word(text: str) -> str:
    """The letters before the hyphen that the text ends in, or "" where there is none or no word can be that long."""
    if not text.endswith("-"):
        return ""
    end = text[-_LONGEST_WORD - 2 : -1]
    letters = len(end)
    while letters and _WORD.fullmatch(end[letters - 1]):
        letters -= 1
    return end[letters:] if len(end) - letters <= _LONGEST_WORD else ""
