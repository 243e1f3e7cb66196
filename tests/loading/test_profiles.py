"""Profiles: what is written is found again by the model it is for, and what somebody else wrote is checked."""

import dataclasses
import json
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.books import Book, load_for, read
from longfocus.errors import CheckpointError
from longfocus.loading.cache import CACHE_VARIABLE
from longfocus.loading.defaults import UNTRAINED, training_free
from longfocus.loading.load import load
from longfocus.loading.profiles import (
    SHAPE,
    SHIPPED,
    Found,
    Profile,
    parse_profile,
    profile_of,
    profile_path,
    write_profile,
)
from longfocus.memory.book import StoredBook
from longfocus.model.config import LongLlamaConfig
from longfocus.reading.documents import Document
from tests.conftest import write_tiny_model

NAME = "0123456789abcdef" * 4
PROFILE = Profile("tiny", 4, (0, 3), 64, 14, 2, 8, (Found("lines", 9, 12),))


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this file."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of their own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def text() -> str:
    return json.dumps({"format": 1, "of": {"fingerprint": NAME}, **dataclasses.asdict(PROFILE)})


def of_small(**fields) -> LongLlamaConfig:
    return LongLlamaConfig(num_hidden_layers=4, hidden_size=64, num_attention_heads=4, **fields)


def test_what_is_written_is_found_by_its_model_alone():
    path = write_profile(NAME, PROFILE)
    assert profile_of(NAME, of_small()) == PROFILE
    assert profile_of("f" * 64, of_small()) is None
    assert [file.name for file in path.parent.iterdir()] == [f"{NAME}.json"]
    shutil.copy(path, profile_path("f" * 64))
    with pytest.raises(CheckpointError, match="another model"):
        profile_of("f" * 64, of_small())
    write_profile(NAME, dataclasses.replace(PROFILE, top_k=4))
    found = profile_of(NAME, of_small())
    assert found is not None
    assert found.top_k == 4


def test_load_does_as_the_profile_says_and_the_user_has_the_last_word(tiny_folder):
    before = load(tiny_folder)
    write_profile(before.fingerprint, PROFILE)
    config = load(tiny_folder).model.config
    found = (config.mem_layers, config.window, config.window_overlap, config.sink_tokens, config.last_context_length)
    assert found == ([0, 3], 64, 14, 2, 48)
    asked = load(tiny_folder, mem_layers=[2], window_overlap=3, window=32)
    assert asked.fingerprint == before.fingerprint
    assert asked.habits == dataclasses.replace(UNTRAINED, top_k=8)
    config = asked.model.config
    assert (config.mem_layers, config.window, config.window_overlap, config.sink_tokens) == ([2], 32, 3, 2)
    assert load(tiny_folder, window=32).model.config.window_overlap == 6  # the same share of it


def test_a_book_that_was_read_before_stays_of_use(tiny_folder, tmp_path):
    document = Document("Short", "The river ran. The lamp was lit. " * 20, (0, 660))
    old = load(tiny_folder, window=64)
    book = read(document, old, tmp_path / "old.book")
    said = book.ask("Who?").text
    write_profile(old.fingerprint, PROFILE)
    again = load_for(StoredBook.open(tmp_path / "old.book"), tiny_folder)
    assert again.model.config.mem_layers == old.model.config.mem_layers != [0, 3]
    assert Book.open(tmp_path / "old.book", tiny_folder).session.loaded.habits.top_k == 8
    write_profile(old.fingerprint, dataclasses.replace(PROFILE, top_k=UNTRAINED.top_k))
    assert Book.open(tmp_path / "old.book", tiny_folder).ask("Who?").text == said
    new = read(document, load(tiny_folder), tmp_path / "new.book")
    assert new.session.book.manifest.reading.memory_layers == (0, 3)
    profile_path(old.fingerprint).unlink()
    assert Book.open(tmp_path / "new.book", tiny_folder).ask("Who?").text


def test_a_model_with_memory_of_its_own_has_no_profile(tiny_folder, tmp_path):
    own = shutil.copytree(tiny_folder, tmp_path / "own")
    fields = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(fields | {"model_type": "longllama", "mem_layers": [1]}))
    loaded = load(own)
    write_profile(loaded.fingerprint, PROFILE)
    assert load(own).model.config.mem_layers == [1]


def test_shipped_profiles_are_for_models_of_their_shape(tmp_path):
    files = sorted(SHIPPED.glob("*.json"))
    assert files
    for file in files:
        shape = json.loads(file.read_text())["of"]["shape"]
        assert shape.keys() == {*SHAPE, "rope_theta"}
        rope = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
        profile = profile_of(NAME, LongLlamaConfig(**shape, rope_parameters=rope))
        assert profile is not None
        assert profile.layers == shape["num_hidden_layers"]
        other = LongLlamaConfig(**shape, rope_parameters=rope | {"rope_theta": 12345.0})
        assert profile_of(NAME, other) is None
        write_profile(NAME, dataclasses.replace(profile, model="my own"))
        own = profile_of(NAME, LongLlamaConfig(**shape, rope_parameters=rope))
        assert own is not None
        assert own.model == "my own"
        profile_path(NAME).unlink()


def test_a_shorter_window_than_the_profile_has(tmp_path):
    fields = training_free(of_small(max_position_embeddings=24), None, PROFILE)
    assert (fields["window_length"], fields["window_overlap"], fields["sink_tokens"]) == (24, 4, 2)
    for window in (1, 2, 3, 5, 8, 63, 64, 65):
        LongLlamaConfig(**of_small().to_diff_dict() | training_free(of_small(), window, PROFILE))


DAMAGES = {
    "nothing": lambda held: "",
    "half": lambda held: json.dumps(held)[:40],
    "a list": lambda held: "[]",
    "nested without end": lambda held: "[" * 100_000,
    "another format": lambda held: json.dumps(held | {"format": 2}),
    "no text": lambda held: b"\xff\xfe\x00",
    "another model": lambda held: json.dumps(held | {"of": {"fingerprint": "f" * 64}}),
    "no owner": lambda held: json.dumps({name: value for name, value in held.items() if name != "of"}),
    "a field more": lambda held: json.dumps(held | {"habits": {}}),
    "layers beyond": lambda held: json.dumps(held | {"memory_layers": [1, 4]}),
    "no layers": lambda held: json.dumps(held | {"memory_layers": []}),
    "layers as text": lambda held: json.dumps(held | {"memory_layers": "13"}),
    "layers of a larger model": lambda held: json.dumps(held | {"layers": 8}),
    "true for a number": lambda held: json.dumps(held | {"top_k": True}),
    "infinity": lambda held: json.dumps(held | {"window": float("inf")}),
    "a full window": lambda held: json.dumps(held | {"overlap": 62}),
    "more found than asked": lambda held: json.dumps(held | {"found": [{"measure": "x", "right": 3, "asked": 2}]}),
    "figures of another kind": lambda held: json.dumps(held | {"found": [{"measure": "x"}]}),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_profile_is_one_line(text, case):
    contents = DAMAGES[case](json.loads(text))
    path = profile_path(NAME)
    path.parent.mkdir(parents=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    refused(path)


def refused(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        profile_of(NAME, of_small())
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "longfocus probe" in message
    return message


def test_what_is_no_file_is_one_line(tmp_path):
    path = profile_path(NAME)
    path.parent.mkdir(parents=True)
    (tmp_path / "secret").write_text("{}")
    path.symlink_to(tmp_path / "secret")
    refused(path)
    path.unlink()
    os.mkfifo(path)
    assert "no plain file" in refused(path)
    path.unlink()
    path.mkdir()
    refused(path)


@settings(deadline=None, max_examples=40)
@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), lambda one: st.lists(one, max_size=3)))
def test_any_value_in_any_place_makes_a_profile_or_a_value_error(value):
    whole = {"format": 1, "of": {}, **dataclasses.asdict(PROFILE)}
    for name in whole:
        try:
            parse_profile(json.dumps(whole | {name: value}), lambda held: True)
        except ValueError:
            continue


def test_a_cache_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=CACHE_VARIABLE):
        write_profile(NAME, PROFILE)


def test_the_tiny_model_is_of_no_shipped_shape(tmp_path):
    made = load(write_tiny_model(tmp_path / "other", seed=3))
    assert profile_of(made.fingerprint, made.model.config) is None
