"""The hub, played by the test: what is asked of it, and what its failures turn into."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from longfocus.errors import CheckpointError
from longfocus.loading import hub
from longfocus.loading.load import load

FILES = {
    "config.json": 1_000,
    "model-00001-of-00002.safetensors": 1_500_000_000,
    "model-00002-of-00002.safetensors": 500_000_000,
    "model.safetensors.index.json": 1_000,
    "consolidated.safetensors": 2_000_000_000,
    "pytorch_model.bin": 2_000_000_000,
    "onnx/model.safetensors": 5,
    "original/params.json": 5,
    "modeling_longllama.py": 5,
    "tokenizer.json": 5,
    "tokenizer_config.json": 5,
    "README.md": 5,
}


@pytest.fixture
def online(monkeypatch, tmp_path):
    """A hub with one repository; `asked` collects what was downloaded, `error` is raised instead where set."""
    state = SimpleNamespace(files=dict(FILES), asked=[], error=None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    class Api:
        def model_info(self, repo, revision, timeout, files_metadata):
            if state.error is not None:
                raise state.error
            listed = [SimpleNamespace(rfilename=name, size=size) for name, size in state.files.items()]
            return SimpleNamespace(siblings=listed)

    def snapshot(repo, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            raise hub.LocalEntryNotFoundError("not here")
        state.asked.append((repo, revision, sorted(allow_patterns)))
        return str(tmp_path)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    return state


def test_what_the_hubs_cache_holds_whole_is_listed(monkeypatch, tmp_path, tiny_folder):
    """A model fetched by name; no other kind of model, no half of one, no data set."""

    def put(kind, name, *, without=(), **fields):
        folder = tmp_path / f"{kind}--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("c0ffee")
        snapshot = shutil.copytree(tiny_folder, folder / "snapshots" / "c0ffee")
        config = json.loads((snapshot / "config.json").read_text()) | fields
        (snapshot / "config.json").write_text(json.dumps(config))
        for file in without:
            (snapshot / file).unlink()
        return snapshot

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "scan_cache_dir", partial(scan_cache_dir, tmp_path))
    monkeypatch.setattr(hub, "snapshot_download", partial(snapshot_download, cache_dir=tmp_path))
    assert list(hub.kept_models()) == []
    whole = put("models", "someone/llama", model_type="llama")
    put("models", "someone/bert", model_type="bert")
    put("models", "someone/half", model_type="llama", without=["model.safetensors"])
    put("datasets", "someone/llama", model_type="llama")
    (put("models", "someone/odd") / "config.json").write_text("[")
    assert list(hub.kept_models()) == [("someone/llama", whole)]


ANSWER = SimpleNamespace(headers={}, request=None)


def test_one_form_of_the_weights_and_no_code_is_fetched(online, tmp_path, capfd):
    said = []
    assert hub.fetch("someone/model", "v1", said.append) == tmp_path
    assert capfd.readouterr() == ("", "")
    ((repo, revision, names),) = online.asked
    assert (repo, revision) == ("someone/model", "v1")
    assert names == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert said == ["Fetching someone/model from the Hugging Face hub (2.0 GB, once)."]


def test_pickles_are_the_last_resort(online):
    online.files = {name: size for name, size in FILES.items() if not name.startswith("model")}
    hub.fetch("someone/model", None, lambda _: None)
    assert online.asked[0][2] == ["config.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "model.gguf"], "has no weights that can be loaded"),
        (["adapter_config.json", "adapter_model.safetensors"], "is an adapter"),
    ],
)
def test_repositories_without_a_model(online, names, message):
    online.files = dict.fromkeys(names, 1)
    with pytest.raises(CheckpointError, match=message):
        hub.fetch("someone/model", None, lambda _: None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RepositoryNotFoundError("404", response=ANSWER), "has no model 'someone/model', or it is private"),
        (GatedRepoError("403", response=ANSWER), "accept its licence at .*someone/model.*hf auth login"),
        (RevisionNotFoundError("404", response=ANSWER), "has no revision 'v1'"),
        (ConnectionError("Name or service\n not known"), "cannot be fetched .*Name or service not known"),
        (TimeoutError(), "cannot be fetched .*TimeoutError"),
    ],
)
def test_what_can_go_wrong_is_one_line(online, error, message):
    online.error = error
    with pytest.raises(CheckpointError, match=message) as caught:
        hub.fetch("someone/model", "v1", lambda _: None)
    assert "\n" not in str(caught.value)


@pytest.fixture
def cached(checkpoint, tmp_path, monkeypatch):
    """A model in the hub's own cache, as a download leaves it."""
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    stored = tmp_path / "hub" / "models--someone--model"
    folder = shutil.copytree(checkpoint()[0], stored / "snapshots" / ("a" * 40))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("a" * 40)
    return folder


def test_what_is_cached_needs_no_hub(cached):
    loaded = load("someone/model", device="cpu")
    assert (loaded.name, loaded.folder) == ("someone/model", cached)
    assert load("someone/model", revision="a" * 40, device="cpu").folder == cached
    with pytest.raises(CheckpointError, match="the hub is switched off"):
        load("someone/model", revision="v2", device="cpu")


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_part_of_a_model_is_not_taken_for_it(cached, lost):
    (cached / lost).unlink()
    (cached / "other.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match=r"not in the cache .* the hub is switched off"):
        load("someone/model", device="cpu")
