"""Several questions at once: each is answered, and cited, as if it were asked alone."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from longfocus.asking import together
from longfocus.asking.account import TOGETHER, AttentionAccount
from longfocus.asking.generation import Sampling, write_rows
from longfocus.asking.rows import watched_rows
from longfocus.asking.session import Session
from longfocus.asking.together import ask_together, one_by_one, stream_together
from longfocus.errors import RequestError
from longfocus.loading.defaults import TRAINED
from longfocus.memory.book import StoredBook
from longfocus.memory.held import PlainHeld
from longfocus.model.memory import DenseMemory

QUESTIONS = ["What is the river?", "Who was there?", "Why?", "The lamp"]
PLAIN = Sampling(max_new_tokens=12, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def book(tiny_book_folder) -> StoredBook:
    return StoredBook.open(tiny_book_folder)


@pytest.fixture(scope="module")
def endless(tiny_model):
    """The small model, which never ends an answer by itself."""
    model = deepcopy(tiny_model.model)
    model.generation_config.eos_token_id = 399
    model.lm_head.weight[399] = 0
    return replace(tiny_model, model=model)


@pytest.fixture(scope="module", params=["best", "all", "trained"])
def session(request, book, endless) -> Session:
    loaded = replace(endless)
    if request.param == "trained":
        return Session(book, replace(loaded, habits=TRAINED))
    return Session(book, loaded, {"best": 16, "all": 10**9}[request.param])


def alike(found, wanted):
    assert (found.question, found.text, found.ids) == (wanted.question, wanted.text, wanted.ids)
    assert found.looked_up == wanted.looked_up
    assert [(one.start, one.end) for one in found.citations] == [(one.start, one.end) for one in wanted.citations]
    assert_close([one.score for one in found.citations], [one.score for one in wanted.citations], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("look_up", [0, 2])
@pytest.mark.parametrize("tokens", [12, 60], ids=["short", "longer than the window"])
def test_each_is_answered_as_if_alone(session, look_up, tokens):
    how = {"sampling": replace(PLAIN, max_new_tokens=tokens), "look_up": look_up}
    alone = [session.ask(question, **how) for question in QUESTIONS]
    for at_once in (1, 3, 8) if tokens < 60 else (3,):
        found = dict(ask_together(session, QUESTIONS, at_once=at_once, **how))
        assert sorted(found) == [0, 1, 2, 3]
        for number, wanted in enumerate(alone):
            alike(found[number], wanted)
        assert any(answer.citations for answer in found.values())


def test_pieces_come_as_they_are_written_and_are_told_in_turn(session):
    came = []

    def seen():
        for number, item in stream_together(session, QUESTIONS, sampling=PLAIN):
            came.append(number)
            yield number, item

    streams = one_by_one(seen(), len(QUESTIONS))
    first = next(streams)
    pieces = [next(first)]
    assert came.count(0) == 1, "the first piece is told before the second is written"
    pieces += first
    for question, told in zip(QUESTIONS, [pieces, *map(list, streams)], strict=True):
        wanted = session.ask(question, sampling=PLAIN)
        alike(told[-1], wanted)
        assert "".join(told[:-1]).strip() == wanted.text
        assert len(told) > 2


def test_without_citations(session):
    found = dict(ask_together(session, QUESTIONS, sampling=PLAIN, citations=0))
    for number, question in enumerate(QUESTIONS):
        alike(found[number], session.ask(question, sampling=PLAIN, citations=0))


def test_one_may_end_before_the_others(session):
    """What ends leaves the batch, and the others go on as they would have."""
    wanted = [session.ask(question, sampling=PLAIN).ids for question in QUESTIONS]
    known = session.loaded.model.generation_config
    before, known.eos_token_id = known.eos_token_id, [wanted[0][2], wanted[3][7]]
    try:
        found = list(ask_together(session, QUESTIONS, sampling=PLAIN))
        alone = [session.ask(question, sampling=PLAIN) for question in QUESTIONS]
    finally:
        known.eos_token_id = before
    assert len({len(answer.ids) for answer in alone}) > 1
    assert [number for number, _ in found] == sorted(range(4), key=lambda number: (len(alone[number].ids), number))
    for number, answer in found:
        alike(answer, alone[number])


def test_sampling_is_that_of_each_alone(session):
    how = {"sampling": Sampling(max_new_tokens=12, temperature=1.5, seed=3)}
    found = dict(ask_together(session, QUESTIONS, **how))
    assert [found[number].ids for number in range(4)] == [session.ask(text, **how).ids for text in QUESTIONS]


def test_memory_is_read_once_for_all(book, tiny_model, monkeypatch):
    session = Session(book, replace(tiny_model, habits=TRAINED))
    read, attend = [], DenseMemory.attend

    def counted(self, query, scale):
        read.append(query.shape[0])
        return attend(self, query, scale)

    monkeypatch.setattr(DenseMemory, "attend", counted)
    monkeypatch.setattr("longfocus.memory.disk.DiskMemory.attend", counted, raising=False)
    list(ask_together(session, QUESTIONS, sampling=replace(PLAIN, max_new_tokens=2), look_up=0))
    layers = len(book.manifest.reading.memory_layers)
    assert read == [4] * 2 * layers


@pytest.fixture
def passes(book, monkeypatch):
    """For how many queries each pass over the keys of the Book was."""
    found, scores = [], PlainHeld.scores

    def counted(self, grouped):
        if len(self) == book.progress.entries:
            found.append(grouped.shape[1])
        return scores(self, grouped)

    monkeypatch.setattr(PlainHeld, "scores", counted)
    return found


def test_keys_are_searched_once_for_all(book, endless, passes):
    """Where each query sees its best entries: while questions are looked up, and at each token of the answers."""
    session = Session(book, endless, 16)
    layers = len(book.manifest.reading.memory_layers)
    prompts = [session.question_ids(question) for question in QUESTIONS]
    attended = together.attended_by(session, prompts)
    heads = 2  # query heads of a key head
    assert passes == [heads * sum(map(len, prompts))] * layers, "padding asks for nothing"
    for prompt, found in zip(prompts, attended, strict=True):
        assert_close(found.attention, session.attended(prompt).attention, rtol=1e-4, atol=1e-6)
    passes.clear()
    list(ask_together(session, QUESTIONS, sampling=replace(PLAIN, max_new_tokens=3), look_up=0))
    assert len(passes) == 3 * layers


def test_accounts_are_kept_in_one_pass_for_all(book, endless, passes):
    """Where every entry counts, what is noted is searched for: by the questions, and by every few tokens."""
    session = Session(book, replace(endless, habits=TRAINED))
    layers = len(book.manifest.reading.memory_layers)
    model = session.loaded.model
    prompts = [session.question_ids(question) for question in QUESTIONS]
    accounts = [AttentionAccount(len(book.ids)) for _ in prompts]
    rows = write_rows(
        model,
        session.loaded.tokenizer,
        prompts,
        watched_rows(session, session.state, accounts, prompts),
        [replace(PLAIN, max_new_tokens=TOGETHER + 1)] * 4,
    )
    list(rows)
    assert len(passes) == 2 * layers
    alone = AttentionAccount(len(book.ids))
    prompt = torch.tensor([prompts[1]])
    with torch.inference_mode():
        model.model(prompt, past_key_values=session.watched_state(alone), use_cache=True)
    assert_close(accounts[1].question.attention, alone.question.attention, rtol=1e-4, atol=1e-6)


def test_bad_questions_are_told_before_anything_is_asked(session, monkeypatch):
    monkeypatch.setattr(together, "_ask", lambda *_: pytest.fail("asked"))
    for bad in (" ", "why " * 500):
        with pytest.raises(RequestError):
            list(ask_together(session, ["Who?", bad]))
    assert list(ask_together(session, [])) == []


def test_a_state_of_rows_can_be_laid_out(session, book):
    """As those who look at attention want it; what came behind the Book is each row's own."""
    prompts = [session.question_ids(question) for question in QUESTIONS[:2]]
    accounts = [AttentionAccount(len(book.ids)) for _ in prompts]
    state = watched_rows(session, session.state, accounts, prompts)
    memory = next(layer.memory for layer in state.layers if layer.memory is not None)
    held = len(memory)
    keys = torch.randn(2, memory.entries().keys.shape[1], 3, memory.entries().keys.shape[-1])
    keep = torch.tensor([[True, True, True], [False, True, True]])
    longer = memory.append(keys, keys, keep).append(keys[:, :, :1], keys[:, :, :1], None)
    assert (len(memory), len(longer), longer.rows) == (held, held + 4, 2)
    assert (longer.counted() - memory.counted()).tolist() == [4, 3]
    laid = longer.entries()
    assert laid.keys.shape[:3:2] == (2, held + 4)
    other = longer.select(torch.tensor([1]))
    assert (other.rows, (other.counted() - memory.counted()).tolist()) == (1, [3])
