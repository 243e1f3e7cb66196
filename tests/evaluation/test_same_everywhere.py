"""What is made up is the same on every machine, and made in seconds however long it is; a killed run loses nothing."""

import subprocess
import sys
import time
from hashlib import sha256

import pytest

from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.runner import Plan, run
from longfocus.evaluation.task import Length, sheets
from longfocus.evaluation.tasks import TASKS, Sources, tasks_of
from longfocus.evaluation.tasks.lines import Lines
from longfocus.loading.prompts import encode_text
from tests.evaluation.test_tasks import SHORT, Known, by_words

HASHES = {
    "bookqa": "7eec2b8069d8",
    "dictionary": "208dddbbfefd",
    "humaneval": "12bef96afa90",
    "humaneval-samples": "bded8bcfab3a",
    "key-values": "946cef3bbef4",
    "lines": "ee33168a0876",
    "lines-letters": "f7a7e0056636",
    "lines-uuids": "a2b7072c18c5",
    "needle": "8203f071521c",
    "needle-filling": "00d882ada0af",
    "passkey": "713a390e47a0",
    "passkey-reference": "cce265d6f570",
    "perplexity": "1d545ab722f1",
    "topics": "fb9f52fa886f",
    "topics-anima": "f9b811b99ff6",
    "topics-any": "632f8fbbe7af",
    "topics-longchat-30": "e145f5396b3d",
    "trec-coarse": "f36c2879a300",
    "trec-fine": "dc46eaaebd97",
    "webqs": "047217043b33",
}
ENDLESS = {"lines": 1, "lines-letters": 1, "lines-uuids": 1} | dict.fromkeys(
    ("passkey", "needle-filling", "key-values"), 0.9999
)
"""Tasks that can be as long as one likes, with how much of a length they fill."""
PROGRAM = """
import sys, time
from pathlib import Path
from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.runner import run
from tests.evaluation.test_same_everywhere import PLAN
from longfocus.evaluation.tasks.lines import Lines
from tests.evaluation.test_tasks import Known

for _ in run(Lines(), Known({}), PLAN, AttemptFile(Path(sys.argv[1]))):
    time.sleep(0.1)
"""
PLAN = Plan((Length(10, "lines"),), 200, 10)


def test_every_task_has_its_hash():
    assert HASHES.keys() == TASKS.keys() - {"cases"}  # which come from a file


@pytest.mark.parametrize("name", HASHES)
def test_sheets_are_these_everywhere(name, reporting_data):
    """A change here makes earlier results incomparable; say so in the changelog."""
    (task,) = tasks_of([name], Sources(reporting_data))
    made = list(sheets(task, SHORT.get(name, Length(600)), by_words, examples=3, seed=5))
    assert sha256(repr(made).encode()).hexdigest()[:12] == HASHES[name]


def test_long_records_of_lines_are_these_everywhere():
    """Those in which few of many lines are asked for."""
    sheet = Lines().sheet(Length(680, "lines"), 0, by_words, 25, 0)
    assert sha256(repr(sheet).encode()).hexdigest()[:12] == "0f6c71568469"


@pytest.mark.slow
@pytest.mark.parametrize("counted", ["words", "tokens"])
@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_a_million_tokens_are_made_in_seconds(name, counted, reporting_data, tiny_model):
    """With a real tokenizer some ten on a quiet machine, most of them for counting."""
    count = by_words if counted == "words" else lambda text: len(encode_text(tiny_model.tokenizer, text))
    (task,) = tasks_of([name], Sources(reporting_data))
    begun = time.perf_counter()
    sheet = task.sheet(Length.parse("1m"), 0, count, task.questions, 0)
    taken = time.perf_counter() - begun
    assert ENDLESS[name] * (1 << 20) <= count(sheet.document) <= 1 << 20
    assert taken < (60 if counted == "words" else 180)


@pytest.mark.slow
def test_a_run_that_is_killed_repeats_nothing(tmp_path):
    path = tmp_path / "lines.jsonl"
    running = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)])
    until = time.monotonic() + 120
    while time.monotonic() < until and not (path.exists() and path.read_bytes().count(b"\n") >= 13):
        time.sleep(0.05)
    running.kill()  # as kill -9 does
    running.wait()
    before = path.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    held = whole.count(b"\n")
    assert 13 <= held < 200
    made = list(run(Lines(), Known({}), PLAN, kept := AttemptFile(path)))
    assert len(made) == 200 - held
    assert len({attempt.place for attempt in kept.attempts}) == 200
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 200
