"""Processes that a launcher has started share the documents out, and the first reports for all."""

import json
import subprocess
import sys

import pytest

from longfocus.evaluation.sharing import Sharing

PROGRAM = """
import sys
from pathlib import Path
from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.figures import figures
from longfocus.evaluation.runner import Plan, run
from longfocus.evaluation.sharing import Sharing
from longfocus.evaluation.task import Length
from longfocus.evaluation.tasks.lines import Lines
from tests.evaluation.test_tasks import Known

sharing, path = Sharing.here(), Path(sys.argv[1])
plan = Plan((Length(10, "lines"), Length(20, "lines")), 6, 2)
kept = AttemptFile(path, sharing.process)
for _ in run(Lines(), Known({}), plan, kept, (sharing.process, sharing.processes)):
    pass
sharing.wait()
import torch.distributed
patience = torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout
assert patience.days > 300, patience
if sharing.first:
    print([(figure.length, figure.examples) for figure in figures(AttemptFile(path).attempts)])
"""


def test_one_process_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    sharing = Sharing.here()
    assert (sharing.process, sharing.processes, sharing.first) == (0, 1, True)
    sharing.wait()


@pytest.mark.slow
def test_two_processes(tmp_path):
    program, path = tmp_path / "program.py", tmp_path / "lines.jsonl"
    program.write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run(
        [*launcher, sys.executable, str(program), str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[('10lines', 6), ('20lines', 6)]" in done.stdout
    sheets = [
        {json.loads(line)["sheet"] for line in held.read_text().splitlines()}
        for held in (path, tmp_path / "lines.1.jsonl")
    ]
    assert sheets == [{0, 2}, {1}]
