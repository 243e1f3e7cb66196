"""What the readers' tests have in common: how a document is refused, and how a PDF is put together byte by byte."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from longfocus.errors import DocumentError
from longfocus.reading.documents import Document, load_document

Refused = Callable[..., str]


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Check that a path is refused in one line that holds a pattern, and return the line."""

    def refused(path: Path | str, what: str = ".") -> str:
        with pytest.raises(DocumentError, match=what) as caught:
            load_document(path)
        message = str(caught.value)
        assert message.isprintable()
        assert message.startswith("Cannot read '")
        assert "Traceback" not in message
        return message

    return refused


@pytest.fixture(scope="session")
def read_or_refused(refused: Refused) -> Callable[[Path], Document | None]:
    """Load a document that may be damaged: it, or None where it is refused; any other exception fails the test."""

    def read_or_refused(path: Path) -> Document | None:
        try:
            document = load_document(path)
        except DocumentError:
            refused(path)
            return None
        assert document.text.strip()
        return document

    return read_or_refused


def pdf_stream(data: bytes, entries: bytes = b"") -> bytes:
    """A PDF's stream, packed."""
    packed = zlib.compress(data, 9)
    head = b"<</Filter/FlateDecode/Length %d%b>>" % (len(packed), entries)
    return head + b"\nstream\n" + packed + b"\nendstream"


@pytest.fixture(scope="session")
def raw_pdf() -> Callable[..., bytes]:
    """Make a PDF of so many pages that all draw the same content; forms X0, X1, ... draw each other.

    `catalog` and `trailer` are entries that are added there, `font` to the pages' only font, `more` objects behind
    all others; the first of these has the number 5 + the number of forms.
    """

    def make(
        content: bytes,
        pages: int = 1,
        forms: tuple[bytes, ...] = (),
        catalog: bytes = b"",
        trailer: bytes = b"",
        font: bytes = b"",
        more: tuple[bytes, ...] = (),
    ) -> bytes:
        names = b"".join(b"/X%d %d 0 R" % (number, 5 + number) for number in range(len(forms)))
        resources = b"/Resources<</Font<</F0 4 0 R>>/XObject<<%b>>>>" % names
        first_page = 5 + len(forms) + len(more)
        kids = b" ".join(b"%d 0 R" % (first_page + page) for page in range(pages))
        objects = [
            b"<</Type/Catalog/Pages 2 0 R%b>>" % catalog,
            b"<</Type/Pages/Count %d/Kids[%b]%b/MediaBox[0 0 99 99]>>" % (pages, kids, resources),
            pdf_stream(content),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica%b>>" % font,
            *(pdf_stream(form, b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]" + resources) for form in forms),
            *more,
            *[b"<</Type/Page/Parent 2 0 R/Contents 3 0 R>>"] * pages,
        ]
        data = bytearray(b"%PDF-1.7\n")
        places = []
        for number, item in enumerate(objects, 1):
            places.append(len(data))
            data += b"%d 0 obj\n%b\nendobj\n" % (number, item)
        table = b"".join(b"%010d 00000 n \n" % place for place in places)
        end = b"trailer<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, trailer, len(data))
        return bytes(data) + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end

    return make
