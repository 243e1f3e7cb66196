"""Pushing: refused in one line, before anything is trained, where it cannot be."""

import json

import pytest
from huggingface_hub import constants

from longfocus.errors import RequestError
from longfocus.training.publishing import check_push, push
from longfocus.training.run_records import ABOUT


@pytest.fixture
def online(monkeypatch, tmp_path):
    """As if the hub were switched on, with nobody logged in and nobody answering."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_switched_off():
    with pytest.raises(RequestError, match="switched off"):
        check_push("owner/name")


def test_nobody_logged_in(online):
    with pytest.raises(RequestError, match="hf auth login"):
        check_push("owner/name")
    online.setenv("HF_TOKEN", "hf_none")
    check_push("owner/name")


@pytest.mark.parametrize("name", ["", "a/b/c", "has space", "-x/y"])
def test_names_that_are_none(name, online):
    with pytest.raises(RequestError, match="wanted owner/name"):
        check_push(name)


def test_only_what_is_over_is_pushed(online, tmp_path):
    online.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(RequestError, match="no run that is over"):
        push(tmp_path, "owner/name")
    (tmp_path / ABOUT).write_text(json.dumps({"ended": "2026-01-01T00:00:00+00:00"}))
    with pytest.raises(RequestError, match="Give the same command again") as refused:
        push(tmp_path, "owner/name")
    assert "\n" not in str(refused.value)
