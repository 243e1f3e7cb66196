"""A bound on the work that reading one PDF file can be, counted in bytes of what its pages draw.

A small file can ask for work without end: a stream that unpacks a thousandfold, a form that draws forms that draw
forms, one heavy stream on a hundred thousand pages. pypdf bounds each stream; this bounds them all together, and each
page is counted before it is read. The count does not depend on the machine: a file is read everywhere or nowhere.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pypdf import PageObject, apply_configuration
from pypdf.errors import LimitReachedError
from pypdf.generic import ArrayObject, DictionaryObject, StreamObject

MAX_STREAM_BYTES = 32 * 2**20
"""Most bytes that one stream may unpack to; a page of text draws some thousands, a detailed map some millions."""

MAX_WORK = 128 * 2**20
"""Most bytes that all pages together may draw. pypdf reads about a million a second."""

_LEAST = 64
"""What a page, a form or a font costs at least, in bytes."""
_LENGTH_WHERE_DOUBLED = 4 * 2**20
"""pypdf adds each piece of a page's text to all before it: at this length, that is as much work again."""
_FONT_SHARE = 1 / 16
"""A font's table of characters is read anew on each page, but much faster than what the page draws."""

_BROKEN = 2**20
"""Cost of a stream that cannot be unpacked: pypdf tries for long, and anew whenever it is met."""
_LONGEST_CHARACTER = 64
"""How many letters a font may say that one of its characters stands for (a ligature's are three or four)."""

_REGULAR = rb"[^\s/\[\]()<>{}%]"
_GAP = rb"(?:\s++|%[^\r\n]*+[\r\n])++"
_OPERATOR = re.compile(
    rb"(?P<string>\()|%%[^\r\n]*|(?:/(?P<name>%b*)%b)?(?<!%b)Do(?!%b)" % (_REGULAR, _GAP, _REGULAR, _REGULAR)
)
_IN_STRING = re.compile(rb"\\.|[()]", re.DOTALL)
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_LONG_CHARACTER = re.compile(rb"<[0-9A-Fa-f\s]{%d,}>" % (4 * _LONGEST_CHARACTER + 1))


@contextmanager
def bounded_streams() -> Iterator[None]:
    """Tighten the limits of pypdf itself while the body runs. What passes them raises `LimitReachedError`."""
    with apply_configuration(
        zlib_maximum_output_length=MAX_STREAM_BYTES,
        lzw_maximum_output_length=MAX_STREAM_BYTES,
        run_length_maximum_output_length=MAX_STREAM_BYTES,
        brotli_maximum_output_length=MAX_STREAM_BYTES,
        array_based_stream_maximum_output_length=MAX_STREAM_BYTES,
        stream_decoding_work_maximum_length=2 * MAX_STREAM_BYTES,
    ):
        yield


class PageWork:
    """The work that is left for one file's pages."""

    def __init__(self, most: int = MAX_WORK) -> None:
        self._left = float(most)
        self._met: dict[int, StreamObject] = {}  # by their ids, and kept so that no other gets the same

    def charge(self, page: PageObject) -> None:
        """Count a page that is about to be read; LimitReachedError where that would be more than all may be."""
        drawn = self._contents(page.get("/Contents"))
        cost = self._drawn(drawn, page, {}, frozenset())
        self._take(cost + cost**2 / _LENGTH_WHERE_DOUBLED)

    def _take(self, amount: float) -> None:
        self._left -= amount
        if self._left < 0:
            raise LimitReachedError("The pages draw more than may be read.")

    def _bytes(self, stream: Any) -> bytes:
        """What a stream unpacks to. The memory that it takes, which pypdf keeps, is counted the first time."""
        stream = _resolved(stream)
        if not isinstance(stream, StreamObject):
            return b""
        try:
            data = stream.get_data()
        except LimitReachedError:
            raise
        except Exception:  # reading the page tells whether it can do without
            self._take(_BROKEN)
            return b""
        if id(stream) not in self._met:
            self._met[id(stream)] = stream
            self._take(len(data))
        return data

    def _contents(self, contents: Any) -> bytes:
        contents = _resolved(contents)
        if not isinstance(contents, ArrayObject):
            return self._bytes(contents)
        data = bytearray()
        for part in contents:
            self._take(_LEAST)
            data += self._bytes(part) + b"\n"
            if len(data) > MAX_STREAM_BYTES:
                raise LimitReachedError("The parts of a page are too long together.")
        return bytes(data)

    def _drawn(self, data: bytes, owner: DictionaryObject, known: dict[int, float], above: frozenset[int]) -> float:
        """Bytes that are read to draw `data`, with the resources of its owner: each form as often as it is drawn."""
        resources = _resources(owner)
        cost = _LEAST + len(data) + self._fonts(resources)
        forms = _dictionary(resources.get("/XObject"))
        if not forms:
            return cost
        heaviest: float | None = None
        for name in _drawn_names(data):
            if name is not None:
                cost += self._form(_resolved(forms.get(name)), known, above)
            else:
                if heaviest is None:
                    heaviest = max(self._form(_resolved(forms.get(each)), known, above) for each in forms)
                cost += heaviest
            if cost > self._left:
                break  # enough is known
        return cost

    def _form(self, form: Any, known: dict[int, float], above: frozenset[int]) -> float:
        if not isinstance(form, StreamObject) or form.get("/Subtype") != "/Form":
            return 0.0  # a picture, which is not unpacked
        if id(form) in above:
            raise LimitReachedError("A form draws itself.")
        if id(form) not in known:
            known[id(form)] = self._drawn(self._bytes(form), form, known, above | {id(form)})
        return known[id(form)]

    def _fonts(self, resources: DictionaryObject) -> float:
        cost = 0.0
        for name in (fonts := _dictionary(resources.get("/Font"))):
            font = _dictionary(fonts.get(name))
            tables = [font.get("/ToUnicode")]
            if tables == [None]:  # pypdf may then look into the font itself
                descriptor = _dictionary(font.get("/FontDescriptor"))
                tables = [descriptor.get(key) for key in ("/FontFile", "/FontFile3")]
            for table in tables:
                cost += _LEAST + _FONT_SHARE * self._table(table)
        return cost

    def _table(self, stream: Any) -> int:
        """Bytes of a font's table; LimitReachedError where one character stands for a page of them."""
        known = id(_resolved(stream)) in self._met
        data = self._bytes(stream)
        if not known and _LONG_CHARACTER.search(data):
            raise LimitReachedError("A font's character stands for too many.")
        return len(data)


def _drawn_names(data: bytes) -> Iterator[str | None]:
    """The names of the objects that some content draws, in order; None where it cannot be told which."""
    place = depth = 0
    # An inline picture's bytes look like anything: where there may be one, what seems to be a string is looked into.
    skips_strings = b"BI" not in data
    while match := (_IN_STRING if depth else _OPERATOR).search(data, place):
        place = match.end()
        if depth:
            depth += {b"(": 1, b")": -1}.get(match[0], 0)
        elif match["string"]:
            depth = int(skips_strings)
        elif match["name"] is not None:
            name = _ESCAPE.sub(lambda code: bytes([int(code[1], 16)]), match["name"])
            yield "/" + name.decode() if name.isascii() else None
        elif match[0] == b"Do":
            yield None


def _resolved(item: Any) -> Any:
    return item.get_object() if item is not None else None


def _dictionary(item: Any) -> DictionaryObject:
    item = _resolved(item)
    return item if isinstance(item, DictionaryObject) else DictionaryObject()


def _resources(owner: DictionaryObject) -> DictionaryObject:
    """An object's own resources, or those of the page tree above it, as pypdf looks for them."""
    seen: set[int] = set()
    while "/Resources" not in owner and "/Parent" in owner and id(owner) not in seen:
        seen.add(id(owner))
        owner = _dictionary(owner.get("/Parent"))
    return _dictionary(owner.get("/Resources"))
