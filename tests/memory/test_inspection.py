"""What is told of a Book, and of what each kind of memory finds in it."""

import json
from dataclasses import replace
from importlib import import_module

import pytest
import torch
import typer
from typer.testing import CliRunner

from longfocus.errors import RequestError
from longfocus.memory import seal
from longfocus.memory.book import StoredBook
from longfocus.memory.disk import DiskMemory
from longfocus.memory.index_files import build_index
from longfocus.memory.inspection import compare, facts_of, kinds_to_compare, questions_or_last_words
from longfocus.memory.quality import Queries, quality
from longfocus.memory.top_k import TopKMemory

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "key_path", lambda: tmp_path / "user" / "index.key")


@pytest.fixture
def stored(book):
    for _ in build_index(StoredBook.open(book), "sq8"):
        pass
    return StoredBook.open(book)


def test_facts_are_those_of_the_files(stored):
    facts = facts_of(stored)
    assert facts.entries == facts.read - stored.state(stored.memories(), torch.float32).window
    assert facts.memory_bytes == facts.entries * facts.entry_bytes
    assert facts.entry_bytes == 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads, numbers of two bytes
    sizes = sum(path.lstat().st_size for path in stored.folder.iterdir())
    assert facts.memory_bytes + facts.other_bytes + facts.index_bytes == sizes
    assert facts.indexes == ("sq8",)
    (stored.folder / "index-sq8-001-0.faiss").unlink()
    assert facts_of(stored).indexes == ("sq8 (is damaged)",)


def test_recall_and_mass_against_sorted_scores(some, some_entries):
    """A memory that sees only the worst entries, one that sees the best, and one that sees every other."""
    keys, values = some_entries(1, 2, 40)
    exact = {3: DiskMemory(keys, values)}
    query = some(1, 4, 5, 8, seed=3)
    shares = (query[0].view(2, -1, 8) @ keys[0].mT * 0.3).softmax(-1)
    best_first = shares.sort(descending=True).values

    for picked, recall in ((slice(0, 10), 1.0), (slice(30, 40), 0.0), (slice(0, 20, 2), 0.5)):

        class Picking(TopKMemory):
            def best(self, grouped, held, picked=picked):
                return (grouped @ keys[0].mT).argsort(dim=-1, descending=True)[:, :, picked]

        found = quality("picking", {3: Picking(exact[3], 10)}, exact, Queries({3: query}, 0.3))
        assert found.recall == pytest.approx(recall)
        assert found.mass == pytest.approx(float(best_first[:, :, picked].sum(-1).mean()), abs=1e-5)
        assert (found.error < 1e-5) == (recall == 1.0)
        assert found.more_bytes == 0


def test_every_kind_is_compared(stored, tiny_model):
    state = stored.state(stored.memories(), torch.float32)
    for questions in ([], [[5, 6, 7], [8, 9]]):
        queries = questions_or_last_words(tiny_model.model.model, stored, questions, state, 4)
        assert {tensor.shape for tensor in queries.layers.values()} == {(1, 4, 4, 16)}
        found = {each.kind: each for each in compare(stored, kinds_to_compare(stored, "usual"), 16, queries)}
        assert list(found) == ["dense", "top-k", "int8", "sq8"]
        assert found["dense"].recall == found["dense"].mass == 1
        assert found["dense"].error == found["dense"].more_bytes == 0
        for kind in ("top-k", "int8", "sq8"):
            assert found[kind].recall > 0.9
            assert 0 < found[kind].mass <= found["top-k"].mass + 1e-3
        # a packed copy, with a mean key nowhere: half of the numbers' bytes and two for each head
        assert found["int8"].more_bytes == stored.progress.entries * 2 * 2 * 2 * (16 + 2)


def test_an_index_that_is_not_there_is_built_to_compare(stored, tiny_model):
    queries = questions_or_last_words(
        tiny_model.model.model, stored, [], stored.state(stored.memories(), torch.float32), 4
    )
    (found,) = compare(stored, ["hnsw"], 16, queries)
    assert found.more_bytes > stored.progress.entries * 2 * 2 * 16
    assert not (stored.folder / "index-hnsw.json").exists()


def test_a_kind_that_is_none(stored):
    with pytest.raises(RequestError, match="no memory 'best'"):
        kinds_to_compare(stored, "top-k, best")


def run(name, *arguments):
    app = typer.Typer()
    app.command()(getattr(import_module(f"longfocus.cli.{name}"), name))
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_verb_tells_what_a_book_holds(stored, tiny_folder):
    done = run("inspect", stored.folder, "--memory", "none", "--json")
    told = json.loads(done.stdout)
    assert told["title"] == "A Story"
    assert told["memories"] == []
    done = run("inspect", stored.folder, "--memory", "none")
    assert f"{stored.progress.entries:,}" in done.stdout


def test_the_verb_compares(stored, tiny_model, monkeypatch):
    import longfocus.books

    monkeypatch.setattr(longfocus.books, "load_for", lambda *_: replace(tiny_model))
    done = run("inspect", stored.folder, "Who saw the river?", "--memory", "top-k,sq8", "--json")
    assert [each["kind"] for each in json.loads(done.stdout)["memories"]] == ["top-k", "sq8"]
    assert "sq8" in run("inspect", stored.folder).stdout


def test_the_verb_builds_an_index_once(book):
    assert "built the index ivf" in run("index", book).stderr
    before = (book / "index-ivf.json").read_bytes()
    assert "is up to date" in run("index", book).stderr
    assert (book / "index-ivf.json").read_bytes() == before
    (book / "index-ivf-002-1.faiss").write_bytes(b"")
    assert "is damaged; building it anew" in run("index", book).stderr
    assert "built" in run("index", book, "--anew").stderr
    run("index", book, "--remove")
    assert not list(book.glob("index-*"))
    with pytest.raises(RequestError, match="no index 'flat'"):
        run("index", book, "--kind", "flat")
