"""The server as an ASGI application: its routes, what stands before them, and how errors look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from longfocus.reading.documents import READERS
from longfocus.serving.bookshelf import Bookshelf
from longfocus.serving.guard import Access, Guard
from longfocus.serving.metrics import Measured
from longfocus.serving.questions import Questions
from longfocus.serving.refusals import Refusal
from longfocus.serving.responses import Json, refused
from longfocus.serving.service import Service

PAGE = Path(__file__).parent / "page"
"""Files that are served at `/`."""


def guarded(app: ASGIApp, service: Service, access: Access) -> ASGIApp:
    """An application, of which every request is counted and checked, those at which it fails among them.

    Args:
        app: What serves requests.
        service: Where they are counted.
        access: Who may ask.
    """
    return Measured(Guard(app, access), service.metrics)


def application(service: Service) -> Starlette:
    """The server's routes; it works from its start-up to its shutdown.

    Args:
        service: What does the work.
    """
    asks, books = Questions(service), Bookshelf(service)

    async def health(request: Request) -> Response:
        """`GET /health`: 200 while requests are served."""
        well = service.worker.is_alive
        return Json({"status": "ok" if well else "stopping"}, 200 if well else 503)

    async def limits(request: Request) -> Response:
        """`GET /v1/limits`: the model, the kinds of documents that are read, and how much may be asked for."""
        facts = {
            "object": "limits",
            "model": Path(service.loaded.name).name,
            "suffixes": [*READERS],
            "question_tokens": service.loaded.model.config.stride,  # of a question to a book, its frame among them
        }
        return Json(facts | asdict(service.limits))

    async def metrics(request: Request) -> Response:
        """`GET /metrics`."""
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @contextlib.asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(service.start)
        try:
            yield
        finally:
            await asyncio.to_thread(service.stop)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/v1/limits", limits),
            Route("/v1/models", asks.models),
            Route("/v1/models/{name}", asks.model),
            Route("/v1/chat/completions", asks.chat, methods=["POST"]),
            Route("/v1/completions", asks.complete, methods=["POST"]),
            Route("/v1/books", books.books, methods=["GET"]),
            Route("/v1/books", books.upload, methods=["POST"]),
            Route("/v1/books/{name}", books.book, methods=["GET"]),
            Route("/v1/books/{name}", books.delete, methods=["DELETE"]),
            Route("/v1/books/{name}/text", books.text),
            Route("/v1/books/{name}/sections", books.sections),
            Route("/v1/books/{name}/events", books.events),
            Route("/v1/books/{name}/cancel", books.cancel, methods=["POST"]),
            Route("/v1/books/{name}/read", books.read, methods=["POST"]),
            Route("/v1/files", books.files, methods=["GET"]),
            Route("/v1/files", books.upload_file, methods=["POST"]),
            Route("/v1/files/{name}", books.file, methods=["GET"]),
            Route("/v1/files/{name}", books.delete_file, methods=["DELETE"]),
            Route("/v1/files/{name}/content", books.text),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        exception_handlers={
            Refusal: _refusal,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _defect,
        },
        lifespan=running,
    )


async def _refusal(_: Request, error: Any) -> Response:
    return refused(error)


async def _http_error(_: Request, error: Any) -> Response:
    """What the framework refuses: unknown paths and methods, broken forms."""
    response = refused(Refusal(error.status_code, str(error.detail)))
    response.headers.update(error.headers or {})
    return response


async def _gone(_: Request, __: Any) -> Response:
    """Nobody is there to read this."""
    return Response(status_code=499)


async def _defect(_: Request, __: Any) -> Response:
    """The log has the traceback; the client learns nothing of it."""
    return refused(Refusal(500, "the server failed at this; its log says why", "internal_error"))
