"""`longfocus serve`: Books over HTTP, in the form of OpenAI's API."""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from longfocus.cli.options import Memory, Model, Quantize

KEY_VARIABLE = "LONGFOCUS_API_KEY"
_NEEDED = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    model: Model = None,
    adapter: Annotated[
        str, typer.Option(help="The adapter to read and answer with, as for `longfocus read`.")
    ] = "usual",
    host: Annotated[
        str, typer.Option(help="The address to listen at; beyond this machine only with a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.", min=0, max=65535)] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with one key a line; each is one client. By default the key in {KEY_VARIABLE}."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name by which the server is called besides, as behind a proxy.")
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy in front, whose word on who asks is taken; wants a key."),
    ] = None,
    max_upload: Annotated[int, typer.Option(help="Most MiB of an uploaded document.", min=1)] = 64,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", min=1)] = 4096,
    queue: Annotated[int, typer.Option(help="Most questions that wait; more are told to come back.", min=1)] = 64,
    memory_layers: Annotated[
        str | None, typer.Option(help="Layers that get a memory, such as 8,12,16; by default what suits the model.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens of the window; by default what suits the model.")] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Tokens of a window that stay in the next; by default what suits the model.")
    ] = None,
    memory: Memory = "auto",
    at_once: Annotated[
        int, typer.Option(help="Most answers that are written together, to questions on one book.", min=1, max=64)
    ] = 8,
    quantize: Quantize = "auto",
) -> None:
    """Serve books over HTTP, to programs that speak OpenAI's API."""
    from longfocus.errors import RequestError

    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise RequestError("serving needs more packages: pip install 'longfocus[serve]'")
    from longfocus.cli.ahead import check_serving
    from longfocus.cli.drawing import say, waiting
    from longfocus.cli.options import adapter_of
    from longfocus.loading.layer_numbers import layer_numbers
    from longfocus.serving.guard import access_for
    from longfocus.serving.limits import MEBIBYTE, Limits

    access = access_for(host, _keys(key_file), tuple(allow_host or ()), tuple(proxy or ()))
    layers = layer_numbers(memory_layers)
    check_serving(model, layers, window, quantize, max_tokens, at_once)
    with waiting("loading the model"):
        from longfocus.loading.load import load
        from longfocus.loading.packed_weights import for_writing
        from longfocus.memory.kinds import AUTO, MEMORY_KINDS
        from longfocus.serving.server import Server, listen
        from longfocus.serving.service import Service

        if memory not in (*MEMORY_KINDS, AUTO):
            raise RequestError(f"there is no memory {memory!r}; choose one of {', '.join([*MEMORY_KINDS, AUTO])}")
        listening = listen(host, port)
        how: dict[str, Any] = {"mem_layers": layers, "window": window, "window_overlap": overlap}
        # In a thread that ends: with the helpers of this one besides those of the thread that computes, there would be
        # more than cores, and every product would wait for them.
        with ThreadPoolExecutor(1) as pool:
            loaded = pool.submit(lambda: load(model, adapter=adapter_of(adapter), progress=say, **how)).result()
            loaded = pool.submit(for_writing, loaded, quantize).result()
    limits = Limits(
        upload_bytes=max_upload * MEBIBYTE,
        answer_tokens=max_tokens,
        usual_tokens=min(256, max_tokens),
        questions=queue,
        at_once=at_once,
    )
    service = Service(loaded, limits, memory)
    address = f"[{host.strip('[]')}]" if ":" in host else host
    say(f"serving {loaded.name} and the books in {service.shelf.folder}")
    say(f"at http://{address}:{listening.getsockname()[1]}/v1; Ctrl-C stops it")
    Server(service, access, tuple(proxy or ())).run([listening])


def _keys(path: Path | None) -> tuple[str, ...]:
    """Keys of clients, from a file or from the environment; never from an argument, which every user can see."""
    from longfocus.errors import RequestError

    if path is None:
        return tuple(filter(None, [os.environ.get(KEY_VARIABLE, "").strip()]))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise RequestError(f"cannot read keys from {path}; wanted a text file with one key a line") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise RequestError(f"{path} holds no key; wanted a text file with one key a line")
    return keys
