"""A document that comes in with a request: from a form's field to text with chapters."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request

from longfocus.errors import DocumentError
from longfocus.reading.documents import Document, load_document, suffix_of
from longfocus.serving.bodies import bounded
from longfocus.serving.kept import Kept, Note, label_of, now
from longfocus.serving.limits import Limits
from longfocus.serving.refusals import Refusal, refusal_of

_FIELDS = 8
_FIELD_BYTES = 4096
_NAMELESS = "document"


@dataclass(frozen=True)
class Uploaded:
    """A document that came in.

    Attributes:
        document: Its text.
        note: What the client said of it.
    """

    document: Document
    note: Note


class Uploads:
    """Takes documents in, a few at a time, and takes them apart one after the other.

    Args:
        kept: Has a place for them meanwhile.
        limits: How large they may be.
    """

    def __init__(self, kept: Kept, limits: Limits) -> None:
        self._kept = kept
        self._limits = limits
        self._coming = 0
        self._apart = asyncio.Semaphore(1)

    async def take(self, request: Request, client: str) -> Uploaded:
        """The document in a form's field `file`.

        Raises:
            Refusal: There is none, it is too large or too slow, or it cannot be read.
        """
        limits = self._limits
        if self._coming >= limits.uploads:
            raise Refusal(429, f"{self._coming} documents are coming in already", "too_many", retry_after=10)
        self._coming += 1
        try:
            slow = bounded(request, limits.upload_bytes, limits.upload_seconds, limits.silence_seconds)
            if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                raise Refusal(400, "send a form (multipart/form-data) with the document in the field `file`")
            async with slow.form(max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES) as form:
                return await self._taken(form, client)
        except ClientDisconnect:
            raise Refusal(400, "the request ended before its body did") from None
        finally:
            self._coming -= 1

    async def _taken(self, form: FormData, client: str) -> Uploaded:
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise Refusal(400, "the form has no file in the field `file`", "missing_required_parameter", "file")
        label = label_of(file.filename)
        folder = self._kept.place("new")
        async with self._apart:
            try:
                document = await asyncio.to_thread(_read, file, folder, label)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if len(document.text) > self._limits.document_characters:
            wanted = f"at most {self._limits.document_characters:,} characters may be read"
            raise Refusal(
                413, f"{label} has {len(document.text):,} characters of text, {wanted}; split it", "too_large"
            )
        said = label_of(purpose) if isinstance(purpose, str) and purpose else "user_data"
        return Uploaded(document, Note(label, file.size or 0, now(), said, client))


def _read(file: UploadFile, folder: Path, label: str) -> Document:
    """Read a document by a copy in a folder of its own, under a name of ours."""
    folder.mkdir()
    path = folder / f"{_NAMELESS}{suffix_of(label)}"
    with path.open("xb") as copy:
        shutil.copyfileobj(file.file, copy)
    try:
        document = load_document(path)
    except DocumentError as error:
        raise refusal_of(error, path, label) from None
    return replace(document, title=Path(label).stem or label) if document.title == _NAMELESS else document
