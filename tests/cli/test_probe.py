"""`longfocus probe` on a small model: what it prints, and what it leaves for `read`."""

import json

import pytest
import typer
from typer.testing import CliRunner

from longfocus.cli.probe import _show, probe
from longfocus.errors import CheckpointError
from longfocus.evaluation import probing
from longfocus.evaluation.probing import Extent, Probed
from longfocus.loading.load import load
from longfocus.loading.profiles import Found, Profile, profile_of, profile_path


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this file."""


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probing, "OVERLAPS", (2,))  # the fewest readings that a profile comes of
    monkeypatch.setattr(probing, "ENTRIES", (16, 4))
    monkeypatch.setattr(probing, "WINDOWS", (2, 2))
    app = typer.Typer()
    app.command()(probe)
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_what_was_found_is_kept(run, tiny_folder, monkeypatch):
    monkeypatch.setattr(probing, "Extent", lambda seconds, window: Extent(seconds, 2, 1, 1, window))
    done = run(tiny_folder, "--budget", 0.1, "--window", 512, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["fingerprint", "profile", "usual", "perplexity", "entry_bytes", "seconds"]
    assert "kept in" in done.stderr
    assert "round 2" in done.stderr
    loaded = load(tiny_folder)
    assert loaded.fingerprint == found["fingerprint"]
    profile = profile_of(loaded.fingerprint, loaded.model.config)
    assert profile is not None
    assert list(profile.memory_layers) == found["profile"]["memory_layers"] == loaded.model.config.mem_layers
    profile_path(loaded.fingerprint).write_text("{}")
    with pytest.raises(CheckpointError, match="remove it, then make it anew"):
        load(tiny_folder)


def test_people_see_how_far_to_trust_it(capsys):
    profile = Profile("a model", 4, (1, 2), 64, 28, 4, 16, (Found("lines", 9, 12),))
    _show(Probed("f" * 64, profile, True, 12.345, 1024, 90.0), as_json=False)
    printed = capsys.readouterr().out
    assert "a model: 4 layers, probed in 1.5 minutes" in printed
    assert "memory layers  1, 2 (the usual ones" in printed
    assert "0.75" in printed and "0.47 to 0.91" in printed
