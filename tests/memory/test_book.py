"""What is written into a Book comes out of it bit for bit."""

import faulthandler
import gc
import os

import pytest
import torch
from torch.testing import assert_close

from longfocus.memory import disk
from longfocus.memory.book import StoredBook
from longfocus.memory.layout import Manifest, Reading, layer_files
from longfocus.memory.writer import BookWriter, raw_bytes
from longfocus.reading.tokens import hash_of, tokenize

READING = Reading("m", "f" * 64, 3, (0, 2), 2, 8, "bfloat16", 16, 4, 2, None)
TEXT = "Zoë read 🦊 on.\ud800 And so on."


def some(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def manifest_for(document_text, tokens, reading=READING, spans=None):
    from safetensors.torch import save

    return Manifest(
        title="Zoë",
        text_sha256=hash_of(document_text.encode("utf-8", "surrogatepass")),
        tokens_sha256=hash_of(save(dict(tokens))),
        tokens=len(tokens["ids"]),
        opening=1,
        spans=spans or ((0, len(document_text)),),
        sections=(),
        reading=reading,
        versions={},
    )


def tokens_of(count):
    place = torch.arange(count) % len(TEXT)
    return {"ids": torch.arange(count).int(), "starts": place - 1, "ends": place}


def window_of(count, seed, dtype=torch.float32):
    keys, values = (some(3, 2, count, 8, seed=seed + part, dtype=dtype) for part in (0, 1))
    return {"keys": keys, "values": values, "positions": torch.arange(count)[None] + seed}


def test_a_book_that_is_finished_is_on_the_disk(tmp_path, monkeypatch):
    """Every file that it is made of, and the names in its folder, whatever order the system likes to write in."""
    brought, fsync = [], os.fsync

    def noted(handle):
        brought.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    tokens = tokens_of(60)
    with BookWriter.open(tmp_path / "b", manifest_for(TEXT, tokens, READING), TEXT, tokens) as writer:
        entries = some(2, 20, 8, seed=1).to(getattr(torch, READING.dtype))
        writer.append(dict.fromkeys((0, 2), (entries, entries)), window_of(6, 0), {}, 26, 1.0)
        assert not brought, "in between the disk is not waited for"
        writer.finish()
    made = {path.name: path.stat().st_ino for path in (tmp_path / "b").iterdir()}
    assert {name for name, number in made.items() if number not in brought} == {"lock", "verified.json"}
    assert {(tmp_path / "b").stat().st_ino, tmp_path.stat().st_ino} <= set(brought)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_round_trip(tmp_path, dtype):
    """Entries in several steps, one of them of no entries; text with half a character; the window in float32."""
    from dataclasses import replace

    kind = getattr(torch, dtype)
    tokens, steps = tokens_of(60), [7, 0, 20]
    manifest = manifest_for(TEXT, tokens, replace(READING, dtype=dtype))
    grown = {layer: [some(2, 27, 8, seed=layer * 2 + part, dtype=kind) for part in (0, 1)] for layer in (0, 2)}
    with BookWriter.open(tmp_path / "b", manifest, TEXT, tokens) as writer:
        done = 0
        for number, count in enumerate(steps):
            entries = {layer: tuple(tensor[:, done : done + count] for tensor in pair) for layer, pair in grown.items()}
            done += count
            held = window_of(6, number)
            progress = writer.append(entries, held, {}, done + 6, 1.5 * number)
            assert (progress.step, progress.tokens, progress.entries) == (number + 1, done + 6, done)
        writer.finish()
    book = StoredBook.open(tmp_path / "b", complete=False)
    assert book.manifest == manifest
    assert book.progress == progress
    assert book.text == TEXT
    assert torch.equal(book.ids, tokens["ids"].long())
    assert torch.equal(book.starts, tokens["starts"])
    assert torch.equal(book.ends, tokens["ends"])
    memories = book.memories()
    assert sorted(memories) == [0, 2]
    for layer, pair in grown.items():
        found = memories[layer].entries()
        assert found.keys.dtype == kind
        assert torch.equal(found.keys[0], pair[0])
        assert torch.equal(found.values[0], pair[1])
    state = book.state(memories, torch.float32)
    assert torch.equal(state.positions, held["positions"])
    for layer in range(3):
        assert torch.equal(state.layers[layer].keys.tensor[0], held["keys"][layer])
        assert torch.equal(state.layers[layer].values.tensor[0], held["values"][layer])
        assert (state.layers[layer].memory is None) == (layer == 1)
    assert len(list((tmp_path / "b").glob("window-*"))) == 1, "windows of earlier steps are removed"


def test_raw_bytes_of_a_tensor_that_lies_crosswise():
    tensor = some(4, 5, dtype=torch.bfloat16).t()
    assert torch.frombuffer(bytearray(raw_bytes(tensor)), dtype=torch.bfloat16).equal(tensor.reshape(-1))


def test_sinks_entries_and_window_are_all_the_tokens(tiny_model, tiny_document, tiny_book_folder):
    """Computed without memory in between: the keys and values of layer 0 of every token, in reading order."""
    book = StoredBook.open(tiny_book_folder)
    tokens = tokenize(tiny_document, tiny_model.tokenizer)
    assert torch.equal(book.ids, tokens.ids)
    assert book.progress.tokens == len(tokens.ids) > 1500
    reading, model = book.manifest.reading, tiny_model.model
    state = book.state(book.memories(), torch.float32)
    held = state.window
    assert book.progress.entries + held == book.progress.tokens
    sinks = reading.sinks
    order = [*range(sinks), *range(len(book.ids) - held + sinks, len(book.ids))]
    assert state.positions[0].tolist() == order
    # the first layer's keys and values are the token's alone
    with torch.inference_mode():
        embedded = model.model.layers[0].input_layernorm(model.model.embed_tokens(book.ids[order]))
        attention = model.model.layers[0].self_attn
        first = state.layers[0]
        for projection, kept in ((attention.k_proj, first.keys), (attention.v_proj, first.values)):
            assert_close(projection(embedded).view(held, 2, -1).transpose(0, 1), kept.tensor[0], rtol=0, atol=1e-5)


def test_entries_are_those_of_the_tokens_between(tiny_folder, tmp_path, tiny_document, monkeypatch):
    """With memory in layer 0, whose keys depend on nothing but the token."""
    from longfocus.loading.load import load
    from longfocus.reading.reader import read_steps

    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    loaded = load(tiny_folder, window=64, mem_layers=[0], dtype="float32")
    for _ in read_steps(tiny_document, loaded, tmp_path / "b.book"):
        pass
    book = StoredBook.open(tmp_path / "b.book")
    sinks, count = book.manifest.reading.sinks, book.progress.entries
    keys, values, _ = book.memories()[0].entries()
    layer = loaded.model.model.layers[0]
    with torch.inference_mode():
        embedded = layer.input_layernorm(loaded.model.model.embed_tokens(book.ids[sinks : sinks + count]))
        for projection, kept in ((layer.self_attn.k_proj, keys), (layer.self_attn.v_proj, values)):
            wanted = projection(embedded).view(count, 2, -1).transpose(0, 1)
            assert_close(wanted, kept[0].float(), rtol=1e-2, atol=1e-3)  # kept in bfloat16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_mapped_entries_cannot_reach_the_file(book):
    """Whoever writes to them is ended, here a process of its own."""
    before = (book / layer_files(1)[0]).read_bytes()
    keys = StoredBook.open(book).memories()[1].entries().keys
    child = os.fork()
    if not child:
        faulthandler.disable()
        keys.zero_()
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert (book / layer_files(1)[0]).read_bytes() == before


def test_a_file_is_mapped_once(book):
    """However many sessions ask; until it is another file, or nobody asks any more."""
    first, second = (StoredBook.open(book).memories()[1].entries().keys for _ in range(2))
    assert first.data_ptr() == second.data_ptr()
    path = book / layer_files(1)[0]
    path.write_bytes(path.read_bytes())
    third = StoredBook.open(book).memories()[1].entries().keys
    assert third.data_ptr() != first.data_ptr()
    assert torch.equal(third, second)
    held = len(disk._MAPS)
    del first, second, third
    gc.collect()
    assert len(disk._MAPS) < held


def test_characters_of_tokens(tiny_book_folder, tiny_model):
    """Each token's characters hold what the token says; those of the opening hold none."""
    book = StoredBook.open(tiny_book_folder)
    opening = book.manifest.opening
    assert (book.starts[:opening] == -1).all()
    assert opening == 1
    whole = tiny_model.tokenizer.decode(book.ids[opening:].tolist())
    assert whole == book.text
    for place in range(opening, len(book.ids), 7):
        said = tiny_model.tokenizer.decode([int(book.ids[place])])
        if "\ufffd" not in said:
            assert said == book.text[book.starts[place] : book.ends[place]]


def test_places_of_characters(tiny_book_folder, tiny_document):
    book = StoredBook.open(tiny_book_folder)
    for section in tiny_document.sections:
        assert book.place(section.start) == book.place(section.end - 1) == {"chapter": section.label}
    assert book.place(len(book.text) + 5) == {}
