"""What the load test of `benchmarks/serve.py` calls good, and that it sees what is bad."""

import importlib.util
import random
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_of_serving", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def verdicts(script):
    return script.Verdicts()


def resident(samples, growth):
    """Megabytes: filled in the first third, then growing by so much in all, with answers that come and go."""
    chance = random.Random(0)
    return [
        1000 * min(1, 0.5 + 2 * step / samples) + growth * step / samples + chance.choice([0, 150, 300])
        for step in range(samples + 1)
    ]


def test_memory_that_is_filled_and_then_stays_is_good(script, verdicts, capsys):
    verdicts.memory(resident(script.SAMPLES, 0), 30)
    assert not verdicts.bad
    assert "MB a minute" in capsys.readouterr().out


def test_memory_that_grows_is_bad_though_single_samples_hide_it(script, verdicts, capsys):
    grown = resident(script.SAMPLES, 150)
    grown[script.SAMPLES // 2] += 300
    verdicts.memory(grown, 30)
    assert verdicts.bad


@pytest.mark.parametrize(
    ("outcomes", "bad"),
    [
        ({"answered": 5, "429": 3, "hung up": 2}, 0),
        ({"answered": 9, "cut short": 1}, 2),
        ({"answered": 9, "500": 1}, 2),
        ({"answered": 9, "ReadError": 1}, 2),
        ({"answered": 9}, 1),
    ],
)
def test_what_is_lost_and_what_fails_is_seen(verdicts, outcomes, bad, capsys):
    verdicts.answers(Counter(outcomes), 10)
    verdicts.errors(Counter(outcomes))
    assert len(verdicts.bad) == bad
