"""The endpoints for Books: `/v1/books`, and `/v1/files`, which are the same documents in OpenAI's form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from longfocus.errors import BookError
from longfocus.reading.reader import ReadProgress
from longfocus.serving.kept import Note
from longfocus.serving.mailbox import Mailbox
from longfocus.serving.readings import ReadingState
from longfocus.serving.refusals import Refusal, refusal_of
from longfocus.serving.requests import MODEL
from longfocus.serving.responses import COMMENT, Events, Json, event
from longfocus.serving.service import Service
from longfocus.serving.shelf import Shelved
from longfocus.serving.uploads import Uploads
from longfocus.serving.worker import Ended

_FILE_STATUS = {"ready": "processed", "failed": "error", "unusable": "error"}


class Bookshelf:
    """Endpoints for Books.

    Args:
        service: The Books, and what reads them.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._uploads = Uploads(service.kept, service.limits)

    async def books(self, request: Request) -> Response:
        """`GET /v1/books`."""
        return Json({"object": "list", "data": await asyncio.to_thread(self._all)})

    async def upload(self, request: Request) -> Response:
        """`POST /v1/books`: a form with the document in `file`. It is read from now on."""
        name = await self._taken_in(request)
        return Json(await asyncio.to_thread(self._book, name), 201, {"Location": f"/v1/books/{name}"})

    async def book(self, request: Request) -> Response:
        """`GET /v1/books/NAME`."""
        return Json(await asyncio.to_thread(self._book, request.path_params["name"]))

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/books/NAME`; a reading that goes on is stopped first."""
        name = request.path_params["name"]
        await self._deleted(name)
        return Json({"id": name, "object": "book", "deleted": True})

    async def text(self, request: Request) -> Response:
        """`GET /v1/books/NAME/text`: the text as it was read, in which citations have their places."""
        text = await asyncio.to_thread(self._told, request.path_params["name"], self._service.shelf.text)
        first, last = (_place(request, name) for name in ("start", "end"))
        # half a character cannot be sent; one in its place leaves all others where they are
        return PlainTextResponse(text[first:last].encode("utf-8", "replace"))

    async def sections(self, request: Request) -> Response:
        """`GET /v1/books/NAME/sections`: chapters and pages, by characters of the text."""
        manifest = await asyncio.to_thread(self._told, request.path_params["name"], self._service.shelf.manifest)
        return Json({"object": "list", "data": [asdict(section) for section in manifest.sections]})

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/books/NAME/cancel`: stop reading; what was read stays, and reading can go on."""
        name = request.path_params["name"]
        before = await asyncio.to_thread(self._book, name)
        await self._stopped(name, before["status"])
        return Json(await asyncio.to_thread(self._book, name))

    async def read(self, request: Request) -> Response:
        """`POST /v1/books/NAME/read`: go on with a reading that was stopped or failed."""
        name = request.path_params["name"]
        service = self._service
        await asyncio.to_thread(self._book, name)
        if not service.kept.has(name):
            raise Refusal(409, f"the document of {name} is not kept here; there is nothing to go on with", "not_kept")
        before = await asyncio.to_thread(service.kept.note, name)
        await asyncio.to_thread(service.kept.mark, name, stopped=False, tries=0)
        try:
            service.readings.begin(name, request.state.client)
        except Refusal:
            await asyncio.to_thread(service.kept.mark, name, stopped=before.stopped, tries=before.tries)
            raise
        return Json(await asyncio.to_thread(self._book, name), 202)

    async def events(self, request: Request) -> Response:
        """`GET /v1/books/NAME/events`: how reading goes on, as server-sent events, until it ends."""
        name = request.path_params["name"]
        await asyncio.to_thread(self._book, name)
        mailbox = self._service.readings.follow(name)

        def leave() -> None:
            if mailbox is not None:
                self._service.readings.leave(name, mailbox)

        return Events(self._progress(name, mailbox), leave)

    async def files(self, request: Request) -> Response:
        """`GET /v1/files`."""
        files = [_file(book) for book in await asyncio.to_thread(self._all)]
        return Json({"object": "list", "data": files, "has_more": False})

    async def upload_file(self, request: Request) -> Response:
        """`POST /v1/files`: as `/v1/books`."""
        name = await self._taken_in(request)
        return Json(_file(await asyncio.to_thread(self._book, name)))

    async def file(self, request: Request) -> Response:
        """`GET /v1/files/NAME`."""
        return Json(_file(await asyncio.to_thread(self._book, request.path_params["name"])))

    async def delete_file(self, request: Request) -> Response:
        """`DELETE /v1/files/NAME`."""
        name = request.path_params["name"]
        await self._deleted(name)
        return Json({"id": name, "object": "file", "deleted": True})

    async def _taken_in(self, request: Request) -> str:
        service, client = self._service, request.state.client
        if service.is_stopping:
            raise Refusal(503, "the server is stopping; upload again in a while", "stopping", retry_after=10)
        uploaded = await self._uploads.take(request, client)
        name = await asyncio.to_thread(service.kept.add, uploaded.document, uploaded.note)
        try:
            service.readings.begin(name, client)
        except Refusal:
            await asyncio.to_thread(service.kept.forget, name)
            raise
        return name

    async def _stopped(self, name: str, status: str) -> None:
        """Stop a reading, and wait until it has let go of its folder."""
        readings = self._service.readings
        mailbox = readings.follow(name, anyway=True)  # who watches must not keep others from stopping it
        if mailbox is None:
            if status in ("waiting", "reading"):
                return  # it has ended meanwhile
            raise Refusal(409, f"{name} is not being read", "not_being_read")
        try:
            await asyncio.to_thread(readings.cancel, name)
            while not isinstance(await mailbox.get(), Ended):
                pass
        finally:
            readings.leave(name, mailbox)

    async def _deleted(self, name: str) -> None:
        service = self._service
        book = await asyncio.to_thread(self._book, name)
        if book["status"] in ("waiting", "reading"):
            await self._stopped(name, book["status"])

        def remove() -> None:
            try:
                service.remove(name)
            except OSError as error:
                service.kept.mark(name, deleted=False)
                raise Refusal(500, f"{name} cannot be deleted: {error.strerror}", "internal_error") from None

        await asyncio.to_thread(remove)

    async def _progress(self, name: str, mailbox: Mailbox | None) -> AsyncIterator[str]:
        try:
            yield event(await asyncio.to_thread(self._book, name))
            while mailbox is not None:
                try:
                    async with asyncio.timeout(self._service.limits.quiet_seconds):
                        told = await mailbox.get()
                except TimeoutError:
                    yield COMMENT
                    continue
                yield event(await asyncio.to_thread(self._book, name))
                if isinstance(told, Ended):
                    return
        except Refusal as refusal:  # it was deleted
            yield event(refusal.to_json())

    def _told(self, name: str, of: Any) -> Any:
        """What the shelf tells of a Book, with errors that a client may see."""
        try:
            return of(name)
        except BookError as error:
            raise refusal_of(error, self._service.shelf.place_of(name), name) from None

    def _all(self) -> list[dict[str, Any]]:
        """All Books, and what is to become one."""
        names = {*self._service.shelf.names(), *self._service.readings.names()}
        books = []
        for name in sorted(names):
            try:
                books.append(self._book(name))
            except Refusal:  # deleted meanwhile
                continue
        return books

    def _book(self, name: str) -> dict[str, Any]:
        """A Book as clients see it.

        Raises:
            Refusal: There is none of this name.
        """
        service = self._service
        reading = service.readings.state(name)
        try:
            shelved = service.shelf.look_at(name)
        except Refusal:
            if reading is None and not service.kept.has(name):
                raise
            shelved = Shelved("stopped")
        return _described(name, service.kept.note(name), shelved, reading)


def _described(name: str, note: Note, shelved: Shelved, reading: ReadingState | None) -> dict[str, Any]:
    progress: ReadProgress | None = None if reading is None else reading.progress
    status = shelved.status if reading is None else reading.status
    left = None if progress is None or status != "reading" else progress.seconds_left
    return {
        "id": name,
        "object": "book",
        "model": f"{MODEL}@{name}",
        "title": shelved.title or note.filename,
        "filename": note.filename,
        "purpose": note.purpose,
        "created_at": note.created or shelved.created,
        "status": status,
        "error": shelved.error if reading is None else reading.error,
        "tokens": progress.total if progress else shelved.tokens,
        "tokens_read": progress.tokens if progress else shelved.done,
        "tokens_resumed": progress.resumed if progress else note.resumed,
        "tokens_per_second": round(progress.speed, 1) if progress else None,
        "seconds_left": None if left is None else round(left, 1),
        "bytes": shelved.bytes,
        "upload_bytes": note.bytes,
        "read_by": shelved.model,
    }


def _file(book: dict[str, Any]) -> dict[str, Any]:
    """A Book in the form of OpenAI's files."""
    return {
        "id": book["id"],
        "object": "file",
        "bytes": book["upload_bytes"],
        "created_at": book["created_at"],
        "filename": book["filename"],
        "purpose": book["purpose"],
        "status": _FILE_STATUS.get(book["status"], "uploaded"),
        "status_details": book["error"],
    }


def _place(request: Request, name: str) -> int | None:
    """A place in the text that the address names."""
    said = request.query_params.get(name)
    if said is None:
        return None
    if not said.isdecimal() or len(said) > 15:
        raise Refusal(400, f"`{name}` must be a number of characters", "invalid_value", name)
    return int(said)
