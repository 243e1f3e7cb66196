import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from longfocus.loading import cache


def fill(folder):
    (folder / "weights").write_bytes(b"w" * 1000)
    (folder / "sub").mkdir()
    (folder / "sub" / "names").write_text("n")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_lives_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "here"))
    assert cache.cache_dir() == tmp_path / "here"
    assert cache.models_dir() == tmp_path / "here" / "models"
    monkeypatch.setenv("LONGFOCUS_CACHE", "~/elsewhere")
    assert cache.cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("LONGFOCUS_CACHE")
    assert cache.cache_dir().name == "longfocus"
    assert cache.cache_dir().is_absolute()


def test_builds_once(tmp_path):
    target = tmp_path / "deep" / "model"
    assert cache.build_once(target, fill) == target
    assert names(target) == ["sub", "weights"]
    assert names(target.parent) == ["model"]

    def again(_):
        raise AssertionError("built twice")

    cache.build_once(target, again)


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    target = tmp_path / "model"

    def fail(folder):
        fill(folder)
        raise RuntimeError("no more paper")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no more paper"):
            cache.build_once(target, fail)
        assert not target.exists()
        assert not list(tmp_path.glob("*.partial"))
        assert not list(tmp_path.glob(".model.*.partial"))

    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(RuntimeError):
        cache.build_once(target, fail, is_complete=lambda _: False)
    assert names(target) == ["old"]


def test_replaces_what_is_not_complete(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "broken").write_text("x")
    cache.build_once(target, fill, is_complete=lambda folder: (folder / "weights").is_file())
    assert names(target) == ["sub", "weights"]
    assert names(tmp_path) == ["model"]


SLOW_BUILD = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
spec = spec_from_file_location("cache", sys.argv[3])  # alone: the package around it waits for transformers
cache = module_from_spec(spec)
spec.loader.exec_module(cache)
target, log = Path(sys.argv[1]), Path(sys.argv[2])
def fill(folder):
    (folder / "weights").write_text("half")
    with log.open("a") as stream:
        stream.write("built\\n")
    print("filling", flush=True)
    sys.stdin.readline()
cache.build_once(target, fill, on_wait=lambda: print("waiting", flush=True))
print("done", flush=True)
"""


def start(target, log):
    """A process that says when it is in the middle of building, and goes on when it is sent a line."""
    command = [sys.executable, "-c", SLOW_BUILD, str(target), str(log), cache.__file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_build_leaves_nothing_that_passes_for_a_model(tmp_path):
    target = tmp_path / "model"
    with start(target, tmp_path / "log") as process:
        assert process.stdout.readline() == "filling\n"
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    left = list(tmp_path.glob(".model.*.partial"))
    assert len(left) == 1
    neighbours = [
        tmp_path / ".model.v2.0123456789ab.partial",
        tmp_path / ".model.x.partial",
        tmp_path / "model.partial",
    ]
    for neighbour in neighbours:
        neighbour.mkdir()

    cache.build_once(target, fill)
    assert names(target) == ["sub", "weights"]
    assert not left[0].exists()
    assert all(neighbour.exists() for neighbour in neighbours)
    assert not (tmp_path / ".model.lock").exists()


def test_a_full_disk_is_an_error_of_the_system_whoever_noticed_it(tmp_path):
    def refused(folder):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match="No space left") as caught:
        cache.build_once(tmp_path / "model", refused)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_two_processes_build_once(tmp_path):
    target, log = tmp_path / "model", tmp_path / "log"
    with start(target, log) as first:
        assert first.stdout.readline() == "filling\n"
        with start(target, log) as second:
            assert second.stdout.readline() == "waiting\n"
            assert first.communicate("go on\n")[0] == "done\n"
            assert second.communicate()[0] == "done\n"
    assert log.read_text() == "built\n"
    assert names(target) == ["weights"]
    assert names(tmp_path) == ["log", "model"]


def test_the_record_notices_damage(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    assert not cache.is_intact(folder)
    assert not cache.is_intact(tmp_path / "absent")
    fill(folder)
    cache.record_source(folder, "made here")
    assert cache.is_intact(folder)

    weights = folder / "weights"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert not cache.is_intact(folder)
    weights.write_bytes(b"x" + whole[1:])
    assert not cache.is_intact(folder)
    weights.write_bytes(whole)  # of another time, but the same: as in a copied cache
    assert cache.is_intact(folder)
    (folder / "sub" / "names").unlink()
    assert not cache.is_intact(folder)


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"files": {}}', '{"files": {"weights": {}}}', '{"files": 3}', "\x00"]
)
def test_a_damaged_record_is_no_record(tmp_path, record):
    fill(tmp_path)
    (tmp_path / "source.json").write_text(record)
    assert not cache.is_intact(tmp_path)
