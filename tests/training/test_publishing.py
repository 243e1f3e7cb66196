"""Pushing: refused in one line, before anything is trained, where it cannot be."""

import json

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import filter_repo_objects

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


def test_what_was_read_and_checkpoints_stay_here(online, tmp_path):
    """Of all that a run leaves, by the names that it has on the hub."""
    online.setenv("HF_TOKEN", "hf_none")
    passed_on = {"README.md", "adapter_config.json", "adapter_model.safetensors", "memory.json", ABOUT, "run.jsonl"}
    kept = {"books/d1/text.txt", "books/d1/window/keys.bin", "runs/events.1", ".lock", "checkpoint-25/optimizer.pt"}
    for name in passed_on | kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"ended": "now"}), encoding="utf-8")
    sent = []

    def upload_folder(self, *, repo_id, folder_path, ignore_patterns):
        found = (path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file())
        sent.append((repo_id, set(filter_repo_objects(found, ignore_patterns=ignore_patterns))))

    online.setattr(HfApi, "create_repo", lambda self, repo, **_: type("Made", (), {"repo_id": repo}))
    online.setattr(HfApi, "upload_folder", upload_folder)
    assert push(tmp_path, "owner/name").endswith("/owner/name")
    assert sent == [("owner/name", passed_on)]
