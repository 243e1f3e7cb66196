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
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILE.parent)  # where Python looks for modules when it runs the script
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


def test_a_process_of_its_own_tells_what_it_measured(script, tmp_path):
    other = tmp_path / "other.py"
    code = ("import os, sys", f"sys.path.insert(0, {str(FILE.parent)!r})", "from own_process import tell")
    told = ("print('noise')", "tell({'given': sys.argv[1], 'seen': os.environ['SEEN']})", "sys.exit(int(sys.argv[2]))")
    other.write_text("\n".join((*code, *told)))
    assert script.told_by(str(other), "text", "0", SEEN="yes") == {"given": "text", "seen": "yes"}
    with pytest.raises(RuntimeError, match="failed with status 1: KeyError: 'SEEN'"):
        script.told_by(str(other), "text", "0")
