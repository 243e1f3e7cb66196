"""A measurement in a process of its own, so that its peak memory and its start are its own: a script runs itself."""

import json
import os
import subprocess
import sys

_MARK = "RESULT "
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
"""Environment for a process whose libraries say nothing."""


def tell(result: dict) -> None:
    """Give the process that waits for it what was measured in this one."""
    print(_MARK + json.dumps(result))


def told_by(script: str, *arguments: str, **environment: str) -> dict:
    """What a script, run with these arguments, told; raises RuntimeError with its last words where it told nothing."""
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )
    line = next((row for row in done.stdout.splitlines() if row.startswith(_MARK)), None)
    if line is None:
        last = "out of memory" if done.returncode == -9 else " ".join(done.stderr.strip().splitlines()[-1:])
        raise RuntimeError(f"failed with status {done.returncode}: {last}")
    return json.loads(line.removeprefix(_MARK))
