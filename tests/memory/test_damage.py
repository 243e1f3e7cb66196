"""A Book folder that is damaged, foreign or hostile is refused in one line; nothing outside of it is touched."""

import json
import math
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from longfocus.asking.session import Session
from longfocus.errors import BookError
from longfocus.memory.book import StoredBook
from longfocus.memory.layout import FORMAT, MANIFEST, PROGRESS, TEXT, TOKENS, VERIFIED, Reading, layer_files
from longfocus.reading.reader import read_steps

FILES = [MANIFEST, TEXT, TOKENS, PROGRESS, "window", *layer_files(1), *layer_files(2)]


def path_of(book: Path, name: str) -> Path:
    return next(book.glob("window-*")) if name == "window" else book / name


def taken_up(book: Path) -> None:
    stored = StoredBook.open(book)
    stored.state(stored.memories(), torch.float32)


def refusal(book: Path) -> str:
    """The one line with which opening a Book, or taking up its state, is refused."""
    with pytest.raises(BookError) as refused:
        taken_up(book)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def as_same(book: Path, tiny_model) -> None:
    """Whether the folder holds the Book that was read, for all that can be asked of it."""
    stored = StoredBook.open(book)
    assert stored.progress.tokens == stored.manifest.tokens == len(stored.ids)
    Session(stored, tiny_model)


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def a_link(path: Path) -> None:
    """To a file with the very same contents, outside."""
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [missing, empty, truncated, halved, a_link, a_folder, a_pipe])
def test_a_damaged_file_is_named(book, name, damage):
    path = path_of(book, name)
    damage(path)
    assert path.name in refusal(book)


@pytest.mark.parametrize("name", [TEXT, TOKENS, "window", *layer_files(1), *layer_files(2)])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_flipped_bit_is_noticed_whether_the_book_was_verified_or_not(book, name, place):
    path = path_of(book, name)
    StoredBook.open(book)
    contents = bytearray(path.read_bytes())
    index = place if place in (0, -1) else int(len(contents) * place)
    contents[index] ^= 1
    path.write_bytes(contents)
    assert path.name in refusal(book)
    (book / VERIFIED).unlink(missing_ok=True)
    assert path.name in refusal(book)


def test_what_lies_behind_the_counted_entries_is_no_damage(book, tiny_model):
    """A process that was killed leaves entries that no record counts."""
    with open(book / layer_files(1)[0], "ab") as file:
        file.write(b"more")
    as_same(book, tiny_model)


@pytest.mark.parametrize("damage", [b"", b"[" * 100_000, b"{}", b"\xff", b"[1]", b"null"])
def test_a_damaged_note_of_the_verification_is_only_ignored(book, damage, tiny_model):
    (book / VERIFIED).write_bytes(damage)
    as_same(book, tiny_model)


def test_verification_is_noted_once(book, tiny_model, monkeypatch):
    """The large files are not read through again until one of them changes."""
    from longfocus.memory import verify

    StoredBook.open(book)
    monkeypatch.setattr(verify, "_sum_of_file", lambda *_: pytest.fail("read through again"))
    as_same(book, tiny_model)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"{}",
        b'{"format": 1}',
    ],
)
@pytest.mark.parametrize("name", [MANIFEST, PROGRESS])
def test_a_record_that_is_none(book, name, contents):
    (book / name).write_bytes(contents)
    line = refusal(book)
    assert name in line or (name == MANIFEST and "format" in line)


HOSTILE = {
    "a later format": (MANIFEST, ("format",), FORMAT + 1),
    "a format that is a long text": (MANIFEST, ("format",), "1\n" * 9999),
    "no sizes": (MANIFEST, ("reading", "head_dim"), None),
    "negative": (MANIFEST, ("reading", "key_heads"), -2),
    "zero": (MANIFEST, ("reading", "head_dim"), 0),
    "huge": (MANIFEST, ("reading", "head_dim"), 2**62),
    "as large as an entry is": (MANIFEST, ("reading", "head_dim"), 2**19),
    "a broken number": (MANIFEST, ("reading", "layers"), 4.5),
    "true": (MANIFEST, ("reading", "layers"), True),
    "a layer that is none": (MANIFEST, ("reading", "memory_layers"), [99]),
    "a layer that leads out": (MANIFEST, ("reading", "memory_layers"), ["../../../etc/passwd"]),
    "other layers": (MANIFEST, ("reading", "memory_layers"), [0, 3]),
    "another dtype": (MANIFEST, ("reading", "dtype"), "float32"),
    "no dtype of ours": (MANIFEST, ("reading", "dtype"), "load"),
    "look back at text": (MANIFEST, ("reading", "look_back"), "all"),
    "look back below zero": (MANIFEST, ("reading", "look_back"), -1),
    "an overlap like the window": (MANIFEST, ("reading", "overlap"), 64),
    "no tokens": (MANIFEST, ("tokens",), 0),
    "other tokens": (MANIFEST, ("tokens",), 10),
    "many tokens": (MANIFEST, ("tokens",), 10**15),
    "an opening as long": (MANIFEST, ("opening",), 10**6),
    "infinite spans": (MANIFEST, ("spans",), [[0, math.inf]]),
    "spans outside": (MANIFEST, ("spans",), [[0, 10**30]]),
    "spans backwards": (MANIFEST, ("spans",), [[10, 0]]),
    "spans below zero": (MANIFEST, ("spans",), [[-5, 5]]),
    "no spans": (MANIFEST, ("spans",), []),
    "a title that is none": (MANIFEST, ("title",), ["x"]),
    "a section that is none": (MANIFEST, ("sections",), [{"kind": "chapter", "label": "x", "start": 0}]),
    "a section of text": (MANIFEST, ("sections",), [{"kind": "chapter", "label": "x", "start": "0", "end": "9"}]),
    "a section without end": (MANIFEST, ("sections",), [{"kind": "page", "label": "x", "start": 0, "end": math.inf}]),
    "a label that is none": (MANIFEST, ("sections",), [{"kind": "page", "label": {}, "start": 0, "end": 1}]),
    "a field too many": (MANIFEST, ("path\nof",), "/etc/passwd"),
    "another text": (MANIFEST, ("text_sha256",), 5),
    "a step that leads out": (PROGRESS, ("step",), "../../x"),
    "a step too long for a name": (PROGRESS, ("step",), 10**400),
    "another step": (PROGRESS, ("step",), 3),
    "a negative step": (PROGRESS, ("step",), -1),
    "no step but tokens": (PROGRESS, ("step",), 0),
    "more tokens than there are": (PROGRESS, ("tokens",), 10**6),
    "fewer entries": (PROGRESS, ("entries",), 3),
    "more entries": (PROGRESS, ("entries",), 1500),
    "entries below zero": (PROGRESS, ("entries",), -1),
    "checksums as a list": (PROGRESS, ("checksums",), [*layer_files(1), *layer_files(2)]),
    "checksums of another file": (PROGRESS, ("checksums", "../../x"), 1),
    "a checksum of text": (PROGRESS, ("checksums", layer_files(1)[0]), "x"),
    "state files as a list": (PROGRESS, ("state_files",), ["x"]),
    "no state files": (PROGRESS, ("state_files",), {}),
    "a state file that leads out": (PROGRESS, ("state_files", "../../x"), 1),
    "a state file of another number": (PROGRESS, ("state_files", "late-0٣.safetensors"), 1),
    "something left for later where nothing is": (PROGRESS, ("state_files", "late-0.safetensors"), 1),
    "something left for later beyond the end": (PROGRESS, ("state_files", f"late-{10**9}.safetensors"), 1),
    "time as text": (PROGRESS, ("seconds",), "long"),
    "no time at all": (PROGRESS, ("seconds",), math.nan),
}


def put(book: Path, name: str, keys: tuple, value: object) -> None:
    record = json.loads((book / name).read_text())
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (book / name).write_text(json.dumps(record))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_record_that_makes_no_sense(book, case):
    put(book, *HOSTILE[case])
    assert str(book) in refusal(book)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([2**63, -1, 0, 1, "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places_in(record: object, before: tuple = ()) -> list[tuple]:
    inner = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    return [place for key, value in inner for place in [(*before, key), *places_in(value, (*before, key))]]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([MANIFEST, PROGRESS]), data=st.data())
def test_any_change_of_a_record_is_refused_or_harmless(tiny_book_folder, tiny_model, tmp_path, name, data):
    """Never another exception; what is believed serves to ask and to find."""
    book = tmp_path / "mutated.book"
    shutil.rmtree(book, ignore_errors=True)
    book.mkdir()
    for path in tiny_book_folder.iterdir():
        if path.name in (MANIFEST, PROGRESS):
            shutil.copy(path, book)
        elif path.name not in (VERIFIED, "lock"):
            os.link(path, book / path.name)
    record = json.loads((book / name).read_text())
    place = data.draw(st.sampled_from(places_in(record)))
    put(book, name, place, data.draw(values))
    try:
        stored = StoredBook.open(book)
        session = Session(stored, tiny_model)
    except BookError as error:
        refused = error
    else:
        for citation in session.find("the river"):
            assert citation.text == stored.text[citation.start : citation.end]
        return
    assert len(str(refused).splitlines()) == 1


def test_opening_writes_to_nothing_outside(book, tiny_model, tmp_path):
    """A link under the name of a file that is written when a Book was verified."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (book / VERIFIED).unlink(missing_ok=True)
    for name in (VERIFIED, VERIFIED + ".new"):
        (book / name).symlink_to(precious)
    as_same(book, tiny_model)
    assert precious.read_text() == "mine"


def test_reading_on_writes_to_nothing_outside(tiny_model, tiny_document, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    steps = read_steps(tiny_document, tiny_model, tmp_path / "b.book")
    for _ in zip(range(4), steps, strict=False):
        pass
    steps.close()
    for name in ("window-4.safetensors", "progress.json.new", "verified.json.new"):
        (tmp_path / "b.book" / name).unlink(missing_ok=True)
        (tmp_path / "b.book" / name).symlink_to(precious)
    for _ in read_steps(tiny_document, tiny_model, tmp_path / "b.book"):
        pass
    assert precious.read_text() == "mine"
    as_same(tmp_path / "b.book", tiny_model)


def test_another_model_or_other_settings_are_named(book, tiny_model):
    stored = StoredBook.open(book)
    config = tiny_model.model.config
    mine = Reading.by(tiny_model.name, tiny_model.fingerprint, config, stored.manifest.reading.look_back)
    stored.check_reader(mine)
    changes = {
        "fingerprint": "f" * 64,
        "window": 128,
        "overlap": 3,
        "sinks": 9,
        "memory_layers": (1,),
        "dtype": "float32",
    }
    for name, value in changes.items():
        with pytest.raises(BookError, match="another model" if name == "fingerprint" else f"with {name} "):
            stored.check_reader(replace(mine, **{name: value}))


@pytest.mark.parametrize("token", [-1, 400, 2**31 - 1])
def test_a_token_that_the_model_does_not_know(book, tiny_model, token):
    """With hashes as they should be: nothing but the vocabulary tells."""
    change_tokens(book, "ids", token)
    with pytest.raises(BookError, match="tokens beyond the model's 400; remove the folder"):
        Session(StoredBook.open(book), tiny_model)


@pytest.mark.parametrize(("name", "place"), [("starts", -2), ("starts", 10**6), ("ends", -1), ("ends", 10**6)])
def test_a_token_of_characters_that_are_not_there(book, name, place):
    change_tokens(book, name, place)
    assert "does not fit the manifest" in refusal(book)


def change_tokens(book: Path, name: str, value: int) -> None:
    """Put a number into the middle of what the Book says of its tokens, and the new hash into its manifest."""
    contents = load((book / TOKENS).read_bytes())
    contents[name][len(contents[name]) // 2] = value
    changed = save(contents)
    (book / TOKENS).write_bytes(changed)
    put(book, MANIFEST, ("tokens_sha256",), sha256(changed).hexdigest())


def test_no_book_at_all(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert MANIFEST in refusal(tmp_path)
    (tmp_path / "file").touch()
    assert "no such folder" in refusal(tmp_path / "file")
