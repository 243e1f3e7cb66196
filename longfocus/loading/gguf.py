"""A LLaMA-family GGUF file turned into a plain Hugging Face folder.

transformers dequantises the weights and rebuilds configuration and tokenizer; `gguf_header` checks the file first,
`gguf_config` and `gguf_tokenizer` put right what that loses. The folder appears whole or not at all (`cache`).
It works offline, keeps the weights in one copy in the wanted type, and says nothing on the terminal.
"""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longfocus.errors import CheckpointError
from longfocus.loading.cache import build_once
from longfocus.loading.gguf_config import mend_config, mend_generation_config
from longfocus.loading.gguf_header import GgufHeader, read_header
from longfocus.loading.gguf_tokenizer import load_tokenizer

_log = logging.getLogger(__name__)
DTYPES = ("bfloat16", "float16", "float32")


def convert_gguf(path: Path | str, out_dir: Path | str, dtype: str = "bfloat16") -> None:
    """Convert the GGUF file at `path` into the new folder `out_dir`, with weights of type `dtype`.

    The folder must not exist, or be empty: what is in it is never overwritten. Raises `CheckpointError` when the
    file is damaged, of another architecture, or holds what a plain folder cannot express.
    """
    source, target = Path(path).expanduser().absolute(), Path(out_dir).expanduser().absolute()
    if dtype not in DTYPES:
        raise CheckpointError(f"Cannot convert weights to {dtype!r}; wanted one of {', '.join(DTYPES)}.")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(f"{target} exists already; name a new folder for the converted model.")
    header = read_header(source)
    try:
        build_once(target, lambda folder: write_model(header, folder, dtype), is_complete=_has_files)
    except OSError as error:
        raise CheckpointError(f"Cannot write the converted model to {target}: {error.strerror or error}.") from error


def write_model(header: GgufHeader, folder: Path, dtype: str) -> None:
    """Write the model of the file of `header` into the existing `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    with _quietly(), _alone(header.path) as lone:
        where, name = str(lone.parent), lone.name
        load_tokenizer(header, lone).save_pretrained(str(folder))
        config = AutoConfig.from_pretrained(where, gguf_file=name)
        mend_config(config, header)
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where,
                gguf_file=name,
                config=config,
                dtype=getattr(torch, dtype),
                # Without this transformers keeps the weights in blocks where it can, and that cannot be saved.
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
        except (RuntimeError, ValueError) as error:  # unexpected shapes, an unknown quantisation, too little memory
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{header.path} cannot be converted: {reason}") from error
        model, report = loaded
        # Missing weights are filled with noise and a warning, which would pass for a model.
        absent = sorted({*report["missing_keys"], *report["mismatched_keys"]}, key=str)
        if absent:
            raise CheckpointError(f"{header.path} lacks {len(absent)} of the model's weights, such as {absent[0]}.")
        mend_generation_config(model.generation_config, header)
        model.save_pretrained(str(folder))


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The same file in a folder with no other: transformers would prefer a tokenizer.json that lies beside it."""
    with tempfile.TemporaryDirectory(prefix="longfocus-") as folder:
        lone = Path(folder, "model.gguf")
        try:
            os.symlink(path, lone)
        except OSError as error:  # Windows without the right to make links
            if any(path.parent.glob("*token*.json")):
                raise CheckpointError(
                    f"{path} lies beside another tokenizer: move it to a folder of its own."
                ) from error
            lone = path
        yield lone


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal; what they said goes to the debug log."""
    from transformers.utils import logging as transformers_logging

    captured, level = io.StringIO(), transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        # Some of the bars are tqdm's own and cannot be switched off one by one.
        with contextlib.redirect_stderr(captured):
            yield
    finally:
        transformers_logging.set_verbosity(level)
        _log.debug("transformers said: %s", captured.getvalue())
