"""The systemd unit and the Dockerfile: what they name is there, and what they run is understood."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from longfocus import cli
from longfocus.serving.guard import access_for
from longfocus.serving.limits import Limits

ROOT = Path(__file__).parents[2]
UNIT, DOCKERFILE = ROOT / "packaging" / "longfocus.service", ROOT / "packaging" / "Dockerfile"
STOP_SECONDS = 90


@pytest.fixture(scope="module")
def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(UNIT.read_text("utf-8"))
    return parser


@pytest.fixture(scope="module")
def steps():
    """Instructions of the Dockerfile and what stands behind them, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def understood(command):
    """A command of ours, as its own parser takes it."""
    program, verb, *options = command
    assert Path(program).name == "longfocus"
    assert verb == "serve"
    return cli._verb("serve").make_context("serve", options).params


def test_the_unit_runs_a_command_that_there_is(unit):
    service = unit["Service"]
    assert understood(shlex.split(service["ExecStart"]))["host"] == "127.0.0.1"
    assert int(service["TimeoutStopSec"]) == STOP_SECONDS > 2 * Limits().grace_seconds + 5
    assert service["User"] == "longfocus"
    assert unit["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path):
    """With a program that there is in place of the one to be installed; what it does not know it only tells."""
    text, replaced = re.subn(
        r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text("utf-8"), flags=re.MULTILINE
    )
    assert replaced == 1
    unit = tmp_path / UNIT.name
    for written, understood in ((text, True), (text.replace("PrivateTmp=", "PrivatTmp="), False)):
        unit.write_text(written, encoding="utf-8")
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        about = [
            line for line in (told.stdout + told.stderr).splitlines() if UNIT.name in line
        ]  # others' units as well
        assert (not about) == understood, about


def test_the_container_runs_a_command_that_there_is(steps):
    (entry,) = (json.loads(rest) for name, rest in steps if name == "ENTRYPOINT")
    assert understood(entry)["host"] == "0.0.0.0"
    (health,) = (rest for name, rest in steps if name == "HEALTHCHECK")
    python, option, source = json.loads(health.partition("CMD")[2])
    assert (python, option) == ("python", "-c")
    assert "/health" in source
    compile(source, "HEALTHCHECK", "exec")
    named = access_for("0.0.0.0", ("a-key-of-enough-letters",), ("books.example",)).hosts
    assert urlsplit(re.search(r"http://[^']+", source)[0]).hostname in named, "it names itself, however it is called"
    assert f"--stop-timeout {STOP_SECONDS}" in DOCKERFILE.read_text("utf-8")


def test_the_container_has_all_that_is_built_from(steps):
    copied = {name for step, rest in steps if step == "COPY" for name in rest.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    needed |= {"pyproject.toml", "constraints.txt", project["project"]["readme"], "LICENSE"}
    assert needed <= {name.removeprefix("./") for name in copied}
    for name in copied:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", [UNIT, DOCKERFILE], ids=lambda path: path.name)
def test_it_is_installed_from_the_checkout_with_constraints(path):
    installed = re.findall(r"pip install [^&\n\\]*", path.read_text("utf-8"))
    assert any("'.[serve]'" in line for line in installed)
    assert all("-c constraints.txt" in line for line in installed)
    assert "serve" in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize("path", [UNIT, DOCKERFILE], ids=lambda path: path.name)
def test_variables_are_those_that_are_read(path):
    read = "".join(source.read_text("utf-8") for source in (ROOT / "longfocus").rglob("*.py"))
    named = set(re.findall(r"\bLONGFOCUS_[A-Z_]+", path.read_text("utf-8")))
    assert named >= {"LONGFOCUS_BOOKS", "LONGFOCUS_CACHE"}
    for name in named:
        assert f'"{name}"' in read, name
