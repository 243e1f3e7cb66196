"""Programs that a model has written are run in a process of their own, which has little to do harm with.

What holds on every Linux: a time on the clock after which its whole process group is killed, limits on the processor's
time, address space, open files and the size of a file; an empty environment; a temporary folder that is deleted; only
the standard library; and a hook that refuses sockets, processes, signals, native code, files outside the folder but for
reading the standard library, and whatever else Python tells of that is not known to be harmless.

Two walls of the kernel stand where it allows them, and hold without the hook too. Namespaces (by `unshare`): there is
no network, no process but its own, all of which end with it, and nothing to change but 16 MB of memory. Landlock: no
file can be read but Python and shared libraries, and none written, made or deleted but in the folder.

What this does not protect from: faults of the kernel and, where a wall is missing, of Python, whose hooks are not made
to hold a program that sets out to break them. Root may start processes without limit if it gets past the hook; they end
with the rest. That files exist can be seen. And a score is not safe from a program that wants to be right by trickery:
it shares a process with its tests, and can return what is equal to anything.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from longfocus.errors import RequestError

_NAMESPACES = ("--user", "--map-root-user", "--net", "--pid", "--ipc", "--uts", "--mount", "--fork", "--kill-child")
_WALLS = (("namespaces", "landlock"), ("landlock",), ("namespaces",), ())


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: Of the processor's time, rounded up.
        clock_seconds: On the clock, Python's start included.
        memory_bytes: Of address space.
        file_bytes: The longest file.
    """

    seconds: float = 5.0
    clock_seconds: float = 20.0
    memory_bytes: int = 512 << 20
    file_bytes: int = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """What came of a program.

    Attributes:
        passed: It came to its end without an error.
        reason: Why it did not; empty if it did.
    """

    passed: bool
    reason: str = ""


class Sandbox:
    """Runs programs.

    Attributes:
        walls: Which walls of the kernel stand.

    Args:
        limits: For each program.

    Raises:
        RequestError: No program can be run here.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self.walls = possible_walls()

    def run(self, program: str) -> Verdict:
        """Run a program of Python, which passes if it ends by itself; leaving early by `sys.exit` is no such end."""
        return _run(program, self._limits, self.walls)


@cache
def possible_walls() -> tuple[str, ...]:
    """Which walls of the kernel can be put up here: "namespaces", "landlock", both or neither; found by doing so.

    Warns if one is missing.

    Raises:
        RequestError: No program can be run here.
    """
    if sys.platform != "linux":
        raise RequestError(f"programs of models are run on Linux only, where they can be held; this is {sys.platform}")
    for walls in _WALLS:
        verdict = _run("import math", Limits(), walls)
        if verdict.passed:
            missing = [wall for wall in _WALLS[0] if wall not in walls]
            if missing:
                told = f"programs of models are run without {' and '.join(missing)}, which this system does not allow"
                warnings.warn(told, stacklevel=2)
            return walls
    raise RequestError(f"programs of models cannot be run here: even an empty one fails ({verdict.reason})")


def _run(program: str, limits: Limits, walls: tuple[str, ...]) -> Verdict:
    word = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(prefix="longfocus-program-") as folder,
        tempfile.TemporaryFile() as job,
        tempfile.TemporaryFile() as verdict,
    ):
        job.write(json.dumps({"program": program, "word": word}).encode())
        job.seek(0)
        ended = _held(_command(folder, limits, walls), job, verdict, limits.clock_seconds)
        verdict.seek(0)
        said = verdict.read(1000).decode(errors="replace")
    if ended is None:
        return Verdict(False, f"it took more than {limits.clock_seconds:g} seconds")
    if said == word and ended == 0:
        return Verdict(True)
    return Verdict(False, said.replace(word, "") or f"it ended early, with status {ended}")


def _command(folder: str, limits: Limits, walls: tuple[str, ...]) -> list[str]:
    python = [os.path.realpath(sys.executable), "-I", "-S", "-B", str(Path(__file__).with_name("sandbox_walls.py"))]
    most = [math.ceil(limits.seconds), limits.memory_bytes, limits.file_bytes]
    command = [*python, os.path.realpath(folder), ",".join(walls), *map(str, most)]
    if "namespaces" in walls:
        command = [shutil.which("unshare") or "unshare", *_NAMESPACES, *command]
    return command


def _held(command: list[str], job: IO[bytes], verdict: IO[bytes], seconds: float) -> int | None:
    """Run a command and end all that it has started; its status, or None if it had to be ended."""
    try:
        process = subprocess.Popen(
            command, stdin=job, stdout=verdict, stderr=subprocess.DEVNULL, env={}, start_new_session=True
        )
    except FileNotFoundError:
        return 127  # no unshare
    watched = os.pidfd_open(process.pid)
    try:
        in_time = bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)
        os.killpg(process.pid, signal.SIGKILL)  # before it is waited for, as long as the number is its own
        status = process.wait()
    return status if in_time else None
