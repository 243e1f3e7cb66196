"""`benchmarks/train.py` runs: every subject takes its steps, and all of the same tokens."""

import importlib.util
from argparse import Namespace
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "train.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_of_training", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rank", [0, 2])
def test_every_subject_is_measured(script, tiny_folder, rank):
    arguments = Namespace(
        model=tiny_folder,
        memory_layers="1,2",
        rows=4,
        row_tokens=128,
        pack=2,
        growth="3",
        rank=rank,
        steps=2,
        threads=1,
    )
    found = {subject: script.measured(subject, arguments) for subject in script.SUBJECTS}
    products = found.pop("products")
    assert products["products"] > 0
    assert products["attention"] > 0
    for subject, told in found.items():
        assert len(told["seconds"]) == 2, subject
        assert told["peak"] > 1e7
    assert found["plain"]["loss"] == pytest.approx(found["transformers"]["loss"], rel=1e-2)
    assert found["plain"]["loss"] != found["cross-batch"]["loss"]
