"""llama.cpp beside ours: its server loop in this process. Needs the wheel `xllamacpp` and the model as GGUF."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def llamacpp(gguf: str | None, context: int, threads: int) -> Iterator[Any]:
    """A server with room for `context` tokens.

    It refuses a text longer than the model was trained on, so it gets a copy of the file that tells another length.
    """
    import xllamacpp
    from gguf import GGUFReader

    assert gguf is not None, "llama.cpp needs --gguf"
    with tempfile.NamedTemporaryFile(suffix=".gguf") as copy:
        copy.write(Path(gguf).read_bytes())
        copy.flush()
        field = GGUFReader(copy.name, "r+").get_field("llama.context_length")
        assert field is not None
        field.parts[field.data[0]][0] = max(context, 8192)

        params = xllamacpp.CommonParams()
        params.model.path = copy.name
        params.n_ctx = context
        params.n_parallel = 1
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.warmup = True
        yield xllamacpp.Server(params)
