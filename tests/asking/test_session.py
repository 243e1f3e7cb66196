"""Asking a Book: what is answered, what is cited, and that watching changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from longfocus.asking.account import NOTED, AttentionAccount, Tally
from longfocus.asking.conversation import Conversation
from longfocus.asking.faithfulness import check_faithfulness
from longfocus.asking.generation import Sampling
from longfocus.asking.passages import Citation, find_passages
from longfocus.asking.session import Answer, Prompt, Session
from longfocus.errors import BookError, RequestError
from longfocus.loading.load import LoadedModel, load
from longfocus.memory.book import StoredBook
from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps

QUESTION = "What is the river?"
PLAIN = Sampling(max_new_tokens=12, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def book(tiny_book_folder) -> StoredBook:
    return StoredBook.open(tiny_book_folder)


@pytest.fixture(scope="module")
def endless(tiny_model) -> LoadedModel:
    """The small model with an end of answers that never comes."""
    from copy import deepcopy

    model = deepcopy(tiny_model.model)
    model.generation_config.eos_token_id = 399
    model.lm_head.weight[399] = 0
    return replace(tiny_model, model=model)


@pytest.fixture(scope="module", params=["best", "all"])
def session(request, book, endless) -> Session:
    return Session(book, endless, {"best": 16, "all": 10**9}[request.param])


@pytest.fixture(scope="module")
def dense(book, endless) -> Session:
    """As for a model that was trained to use memory: every entry is seen."""
    from longfocus.loading.defaults import TRAINED

    return Session(book, replace(endless, habits=TRAINED))


def greedy(loaded, state, ids, count):
    """The likeliest token each time, written down plainly."""
    written = []
    with torch.inference_mode():
        given = torch.tensor([ids])
        for _ in range(count):
            output = loaded.model(given, past_key_values=state, use_cache=True, last_context_length=given.shape[1])
            state, token = output.past_key_values, int(output.logits[0, -1].argmax())
            written.append(token)
            given = torch.tensor([[token]])
    return written


def test_an_answer_is_plain_greedy_generation(session):
    answer = session.ask(QUESTION, sampling=PLAIN)
    assert list(answer.ids) == greedy(session.loaded, session.state, session.question_ids(QUESTION), 12)
    assert answer.text == session.loaded.tokenizer.decode(answer.ids, skip_special_tokens=True).rstrip("\ufffd").strip()
    assert answer.question == QUESTION


def test_what_is_seen_of_memory_matters(dense, book):
    """Else the tests here could not tell a memory from none."""
    few = Session(book, dense.loaded, 1)
    assert dense.ask(QUESTION, sampling=PLAIN).ids != few.ask(QUESTION, sampling=PLAIN).ids
    assert (
        dense.ask(QUESTION, sampling=PLAIN).ids == Session(book, dense.loaded, 10**9).ask(QUESTION, sampling=PLAIN).ids
    )


def test_watching_changes_nothing(session):
    watched = session.ask(QUESTION, sampling=PLAIN, citations=3)
    unwatched = session.ask(QUESTION, sampling=PLAIN, citations=0)
    assert watched.ids == unwatched.ids
    assert unwatched.citations == ()
    assert 0 < len(watched.citations) <= 3


def test_asking_leaves_the_state_as_it_was(session):
    first = session.ask(QUESTION, sampling=PLAIN)
    other = session.ask("Where is the captain?", sampling=replace(PLAIN, max_new_tokens=60))
    again = session.ask(QUESTION, sampling=PLAIN)
    assert (first.ids, first.citations) == (again.ids, again.citations)
    assert other.ids[:12] != first.ids
    assert session.find("A stone") == session.find("A stone")


def test_citations_are_quoted(session, book):
    for citation in (*session.ask(QUESTION, sampling=PLAIN).citations, *session.find(QUESTION)):
        assert citation.text == book.text[citation.start : citation.end]
        assert citation.chapter.startswith("Chapter ")
        assert 0 < citation.score <= 1


def test_an_answer_for_machines(session):
    answer = session.ask(QUESTION, sampling=PLAIN).to_json()
    assert list(answer) == ["question", "answer", "citations", "timings"]
    for citation in answer["citations"]:
        assert list(citation) == ["text", "start", "end", "score", "chapter"]
    timings = answer["timings"]
    assert timings["answer_tokens"] == 12
    assert timings["question_tokens"] == len(session.question_ids(QUESTION))
    assert 0 < timings["first_token"] <= timings["total"]


def brute_shares(session, ids):
    """Weights over window and memory, laid open: by layers of memory [H, T, S + N]."""
    with torch.inference_mode():
        output = session.loaded.model(
            torch.tensor([ids]),
            past_key_values=session.state,
            use_cache=True,
            last_context_length=len(ids),
            output_attentions=True,
        )
    return [output.attentions[layer][0] for layer in session.book.manifest.reading.memory_layers]


def tallied(weights, tokens, first):
    """Squared shares of each query's most attended entries, divided by how often each was among them; by layers."""
    total = torch.zeros(tokens)
    for layer in weights:
        squares, times = torch.zeros(tokens), torch.zeros(tokens)
        for row in layer.flatten(0, 1):
            for share, place in zip(*row.sort(descending=True), strict=True):
                if times_left(row, place) < NOTED:
                    squares[first + place] += share**2
                    times[first + place] += 1
        found = squares / times.clamp_min(1)
        total += found / found.sum()
    return total


def times_left(row, place):
    """How many entries of a row got more."""
    return int((row > row[place]).sum())


def account_of(session, ids, window_counts=False):
    account = AttentionAccount(len(session.book.ids))
    account.window_counts = window_counts
    with torch.inference_mode():
        session.loaded.model(
            torch.tensor([ids]),
            past_key_values=session.watched_state(account),
            use_cache=True,
            last_context_length=len(ids),
        )
    return account


def test_shares_of_a_whole_memory_are_the_models_attention(dense, book):
    ids = dense.question_ids(QUESTION)[-4:]
    account = account_of(dense, ids)
    sinks, entries = book.manifest.reading.sinks, book.progress.entries
    weights = [layer[..., -entries:] for layer in brute_shares(dense, ids)]
    for tally, chosen in ((account.question, slice(0, -1)), (account.answer, slice(-1, None))):
        wanted = tallied([layer[:, chosen] for layer in weights], len(book.ids), sinks)
        assert float(wanted.max()) > 1e-4
        assert_close(tally.attention, wanted, rtol=2e-3, atol=1e-8)


def test_the_documents_end_in_the_window_counts_as_if_it_were_in_memory(dense, book):
    ids = dense.question_ids(QUESTION)
    behind = book.manifest.reading.sinks + book.progress.entries
    with_window, without = (
        sum(squares for squares, _ in account_of(dense, ids, counts).question.layers.values())
        for counts in (True, False)
    )
    assert torch.equal(with_window[:behind], without[:behind])
    assert with_window[behind:].any()
    assert not without[behind:].any()


def test_shares_of_the_best_entries_are_of_those_alone(book, endless):
    few = Session(book, endless, 2)
    ids = few.question_ids(QUESTION)
    account = account_of(few, ids)
    sinks, entries = book.manifest.reading.sinks, book.progress.entries
    question, answer = account.question.attention, account.answer.attention
    assert not question[:sinks].any()
    assert not question[sinks + entries :].any()
    # two memory layers, four heads, two entries for each query
    assert 1 <= int((answer > 0).sum()) <= 2 * 4 * 2
    assert int((answer > 0).sum()) < int((question > 0).sum()) <= 2 * 4 * 2 * len(ids)
    assert 0 < float(answer.max()) <= 2


def test_a_question_is_settled_when_its_answer_begins(dense, book):
    """What the answer's later tokens attend to is the answer's; the question's account stays as it was."""
    ids = dense.question_ids(QUESTION)
    accounts = []
    for tokens in (1, 2):
        account = AttentionAccount(len(book.ids))
        state, given = dense.watched_state(account), torch.tensor([ids])
        with torch.inference_mode():
            for _ in range(tokens):
                output = dense.loaded.model(
                    given, past_key_values=state, use_cache=True, last_context_length=given.shape[1]
                )
                state, given = output.past_key_values, output.logits[:, -1:].argmax(-1)
        accounts.append(account)
    assert torch.equal(accounts[0].question.attention, accounts[1].question.attention)
    assert not torch.equal(accounts[0].answer.attention, accounts[1].answer.attention)


def test_tallies_add_up():
    one, other, both = Tally(5), Tally(5), Tally(5)
    for tally in (one, both):
        tally.add(torch.tensor([[1, 3], [3, 4]]), torch.tensor([[0.5, 0.2], [0.4, 0.1]]))
    for tally in (other, both):
        tally.add(torch.tensor([3]), torch.tensor([0.6]))
    assert_close(one.attention, torch.tensor([0, 0.25, 0, (0.04 + 0.16) / 2, 0.01]).float() / 0.36)
    assert_close((one + other).attention, both.attention)
    third = (0.04 + 0.16 + 0.36) / 3
    assert_close(both.attention[3], torch.tensor(third / (0.25 + third + 0.01)))


def test_each_layer_has_one_say():
    tally = Tally(3)
    tally.add(torch.tensor([0]), torch.tensor([0.9]), layer=4)
    tally.add(torch.tensor([1, 2]), torch.tensor([0.02, 0.01]), layer=7)
    assert_close(tally.attention, torch.tensor([1.0, 0.8, 0.2]))


@pytest.fixture(scope="module")
def roomy(tiny_model, tmp_path_factory) -> Session:
    """A session whose window has room for passages."""
    loaded = load(tiny_model.folder, window=512, mem_layers=[1, 2], dtype="float32")
    text = "".join(f"The {word} was found in the {place}.\n\n" for word, place in NAMED) * 3
    folder = tmp_path_factory.mktemp("roomy") / "book"
    for _ in read_steps(Document("Finds", text, (0, len(text)), ()), loaded, folder):
        pass
    return Session(StoredBook.open(folder), loaded)


NAMED = [(f"{one}{two}", f"{two}{one} house") for one in ("stone", "lamp", "rope", "coin") for two in ("red", "old")]


def test_what_is_looked_up_stands_before_the_question(roomy):
    prompt = roomy.looked_up(QUESTION, 3)
    assert 1 <= len(prompt.looked_up) <= 3
    attention = roomy.looked_up(QUESTION, 1).attention.attention
    assert prompt.looked_up == find_passages(roomy.book, attention, 3, join=False)
    text = roomy.loaded.tokenizer.decode(prompt.ids)
    places = [text.index(passage.text) for passage in sorted(prompt.looked_up, key=lambda each: each.start)]
    assert places == sorted(places)
    assert places[-1] < text.index(QUESTION)
    assert roomy.looked_up(QUESTION, 0) == Prompt(QUESTION, roomy.question_ids(QUESTION))
    usual = roomy.loaded.habits.look_up
    assert usual > 0
    assert roomy.looked_up(QUESTION, None).looked_up == roomy.looked_up(QUESTION, usual).looked_up


def test_an_answer_rests_on_what_was_looked_up(roomy):
    answer = roomy.ask(QUESTION, sampling=PLAIN, look_up=2)
    ids = roomy.question_ids(QUESTION, answer.looked_up)
    assert list(answer.ids) == greedy(roomy.loaded, roomy.state, ids, 12)[: len(answer.ids)]
    assert answer.timings.question_tokens == len(ids)
    alone = roomy.ask(QUESTION, sampling=PLAIN, look_up=0)
    assert alone.looked_up == ()
    assert answer.ids != alone.ids


def test_no_more_is_looked_up_than_fits(roomy):
    room = roomy.loaded.model.config.stride
    prompt = roomy.looked_up(QUESTION, 100)
    assert 1 < len(prompt.looked_up) < 24
    assert len(prompt.ids) <= room
    long = " ".join(["word"] * 10_000)
    with pytest.raises(RequestError, match="shorten it"):
        roomy.looked_up(long, 3)


def test_hiding_a_passage_takes_it_out_of_the_prompt_too(roomy):
    answer = roomy.ask(QUESTION, sampling=PLAIN, look_up=1)
    (passage,) = answer.looked_up
    found = check_faithfulness(roomy, answer, passage)
    bare = replace(answer, looked_up=())
    elsewhere = Citation("", 10, 10, 1.0)
    assert found.log_likelihood == check_faithfulness(roomy, answer, elsewhere).log_likelihood
    assert found.without_passage == check_faithfulness(roomy, bare, passage).without_passage
    assert found.log_likelihood != check_faithfulness(roomy, bare, elsewhere).log_likelihood


def test_turns_of_a_conversation_are_looked_up_each(roomy):
    talk = Conversation(roomy, PLAIN, look_up=2)
    for question in (QUESTION, "Where was the rope?"):
        *_, answer = talk.stream(question)
        assert answer.looked_up == roomy.looked_up(question, 2).looked_up
        assert answer.timings.question_tokens > len(roomy.question_ids(question))


def test_pieces_joined_are_the_answer(session):
    for max_new_tokens in (1, 40):
        *pieces, answer = session.stream(QUESTION, sampling=Sampling(max_new_tokens=max_new_tokens))
        assert isinstance(answer, Answer)
        assert "".join(pieces).strip() == answer.text
        assert len(answer.ids) == max_new_tokens
    assert len(pieces) > 3


def test_closing_a_stream_stops_the_model(session, monkeypatch):
    steps, forward = [], session.loaded.model.forward

    def counted(*given, **options):
        steps.append(given)
        return forward(*given, **options)

    monkeypatch.setattr(session.loaded.model, "forward", counted)
    stream = session.stream(QUESTION, sampling=Sampling(max_new_tokens=100_000))
    next(stream)
    begun = len(steps)
    stream.close()
    assert 0 < len(steps) == begun
    assert not torch.is_inference_mode_enabled()


def test_an_answer_ends_where_the_model_ends_it(dense):
    end = dense.ask(QUESTION, sampling=PLAIN).ids[3]
    known = dense.loaded.model.generation_config
    before, known.eos_token_id = known.eos_token_id, [398, end]
    try:
        answer = dense.ask(QUESTION, sampling=PLAIN)
    finally:
        known.eos_token_id = before
    whole = dense.ask(QUESTION, sampling=PLAIN).ids
    assert answer.ids == whole[: whole.index(end)]
    assert answer.timings.answer_tokens == len(answer.ids)


def test_sampling_with_a_seed_can_be_repeated(session):
    def asked(seed):
        return session.ask(QUESTION, sampling=Sampling(max_new_tokens=12, temperature=1.5, seed=seed)).ids

    assert asked(1) == asked(1)
    assert len({asked(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("question", ["", " ", "\n\t"])
def test_an_empty_question(session, question):
    for ask in (session.ask, session.find):
        with pytest.raises(RequestError, match="empty"):
            ask(question)


def test_a_question_that_is_no_text(session):
    for ask in (session.ask, session.find):
        with pytest.raises(RequestError, match="not UTF-8"):
            ask("caf\udce9?")


def test_the_longest_question_and_one_longer(session):
    room = session.loaded.model.config.stride
    left = room - len(session.question_ids("Q"))
    fits, longer = "Q" * (left + 1), "Q" * (left + 2)
    assert len(session.question_ids(fits)) == room
    assert len(session.ask(fits, sampling=PLAIN).ids) == 12
    for ask in (session.ask, session.find):
        with pytest.raises(RequestError, match=f"has {room + 1} tokens .* has room for {room}; shorten it"):
            ask(longer)


def test_without_memory_the_prompt_is_all_that_counts(session, book):
    opening = book.ids[: book.manifest.opening].tolist()
    empty = LongLlamaCache([LayerState() for _ in range(4)])
    nothing = session.ask(QUESTION, uses="nothing", sampling=PLAIN)
    assert list(nothing.ids) == greedy(session.loaded, empty, opening + session.question_ids(QUESTION), 12)
    assert nothing.citations == ()
    window = session.ask(QUESTION, uses="window", sampling=PLAIN)
    asked = session.question_ids(QUESTION)
    end = book.ids[-(64 - len(opening) - len(asked) - 12) :].tolist()
    assert list(window.ids) == greedy(session.loaded, empty, opening + end + asked, 12)
    assert window.timings.question_tokens + 12 == 64
    assert len({nothing.ids, window.ids, session.ask(QUESTION, sampling=PLAIN).ids}) == 3


def test_the_documents_end_has_its_share_of_the_window_however_long_an_answer_may_be(session, book):
    opening = book.ids[: book.manifest.opening].tolist()
    asked = session.question_ids(QUESTION)
    end = book.ids[-((64 - len(opening) - len(asked) + 1) // 2) :].tolist()
    assert session.without_memory(asked, "window", 1000) == opening + end + asked
    window, nothing = (
        session.ask(QUESTION, uses=uses, sampling=replace(PLAIN, max_new_tokens=70)) for uses in ("window", "nothing")
    )
    empty = LongLlamaCache([LayerState() for _ in range(4)])
    assert list(window.ids) == greedy(session.loaded, empty, opening + end + asked, 70)
    assert window.ids != nothing.ids


def test_a_question_that_leaves_the_document_no_room(session):
    with pytest.raises(RequestError, match="no room in the window of 64; shorten it"):
        session.without_memory([5] * 64, "window", 10)


def test_a_book_of_another_model_is_refused(book, tiny_model):
    with pytest.raises(BookError, match="read by another model"):
        Session(book, replace(tiny_model, fingerprint="0" * 64))


def test_a_conversation_is_all_turns_laid_out(session):
    talk = Conversation(session, PLAIN)
    *_, first = talk.stream(QUESTION)
    assert first.ids == session.ask(QUESTION, sampling=PLAIN).ids
    assert first.citations == session.ask(QUESTION, sampling=PLAIN).citations
    *_, second = talk.stream("And why?")
    tokenizer, frame = session.loaded.tokenizer, session.frame
    between = tokenizer(frame.between_turns, add_special_tokens=False)["input_ids"]
    asked = tokenizer("And why?", add_special_tokens=False)["input_ids"]
    after = tokenizer(frame.after_question, add_special_tokens=False)["input_ids"]
    # by hand: the first question, all but the last token of its answer one by one, then the rest
    state = session.state
    with torch.inference_mode():
        for ids in (session.question_ids(QUESTION), *([token] for token in first.ids[:-1])):
            state = session.loaded.model.model(
                torch.tensor([ids]), past_key_values=state, use_cache=True, last_context_length=len(ids)
            ).past_key_values
    assert list(second.ids) == greedy(session.loaded, state, [first.ids[-1], *between, *asked, *after], 12)
    assert second.ids != session.ask("And why?", sampling=PLAIN).ids
    assert 0 < len(second.citations) <= 3
    for citation in second.citations:
        assert citation.text == session.book.text[citation.start : citation.end]


def test_a_question_that_does_not_fit_leaves_the_conversation_as_it_was(session):
    talks = [Conversation(session, PLAIN) for _ in range(2)]
    for talk in talks:
        list(talk.stream(QUESTION))
    for wrong in ("", "river " * 60):
        with pytest.raises(RequestError):
            list(talks[0].stream(wrong))
    answers = [list(talk.stream("And why?"))[-1] for talk in talks]
    assert answers[0].ids == answers[1].ids


def test_a_stream_that_was_broken_off_leaves_the_conversation_as_it_was(session):
    talk = Conversation(session, PLAIN)
    stream = talk.stream("Where is the captain?")
    next(stream)
    stream.close()
    *_, answer = talk.stream(QUESTION)
    assert answer.ids == session.ask(QUESTION, sampling=PLAIN).ids


def likelihood(session, answer, state):
    """Of the answer's tokens, one by one."""
    total, given = 0.0, session.question_ids(answer.question)
    with torch.inference_mode():
        for token in answer.ids:
            output = session.loaded.model(
                torch.tensor([given]), past_key_values=state, use_cache=True, last_context_length=len(given)
            )
            state, given = output.past_key_values, [token]
            total += float(output.logits[0, -1].log_softmax(-1)[token])
    return total


def test_likelihood_of_an_answer(session):
    answer = session.ask(QUESTION, sampling=PLAIN)
    found = check_faithfulness(session, answer, answer.citations[0])
    assert found.log_likelihood == pytest.approx(likelihood(session, answer, session.state), abs=1e-3)
    assert found.hidden_tokens > 0
    assert found.drop == found.log_likelihood - found.without_passage != 0


def test_hiding_nothing_loses_nothing(session):
    answer = session.ask(QUESTION, sampling=PLAIN)
    found = check_faithfulness(session, answer, Citation("", 10, 10, 1.0))
    assert found.hidden_tokens == 0
    assert found.drop == pytest.approx(0, abs=1e-4)


def test_hiding_what_no_query_chose_loses_nothing(book, endless):
    few = Session(book, endless, 1)
    answer = few.ask(QUESTION, sampling=PLAIN)
    account = AttentionAccount(len(book.ids))
    account.window_counts = False
    state = few.watched_state(account)
    with torch.inference_mode():
        for ids in (few.question_ids(QUESTION), *([token] for token in answer.ids)):
            output = few.loaded.model(
                torch.tensor([ids]), past_key_values=state, use_cache=True, last_context_length=len(ids)
            )
            state = output.past_key_values
    sinks, entries = book.manifest.reading.sinks, book.progress.entries
    chosen = (account.question + account.answer).attention[sinks : sinks + entries] > 0
    unseen, seen = (int(which.nonzero()[0, 0]) + sinks for which in (~chosen, chosen))
    drops = {}
    for place in (unseen, seen):
        found = check_faithfulness(few, answer, Citation("", int(book.starts[place]), int(book.ends[place]), 1.0))
        assert found.hidden_tokens == 1
        drops[place] = abs(found.drop)
    assert drops[unseen] < 1e-4 < drops[seen]


def test_hiding_all_of_the_document_is_reading_none_of_it(dense, book):
    """Only the opening can be seen then, and it is in the window; places in the window do not close up, though."""
    answer = dense.ask(QUESTION, sampling=PLAIN)
    found = check_faithfulness(dense, answer, Citation("", 0, len(book.text), 1.0))
    assert found.hidden_tokens == len(book.ids) - book.manifest.opening
    state = dense.state
    layers = [LayerState(layer.keys, layer.rotated, layer.values, None) for layer in state.layers]
    keep = torch.zeros((1, state.window), dtype=torch.bool)
    keep[:, : book.manifest.opening] = True
    bare = LongLlamaCache(layers, state.positions, keep, state.seen)
    assert found.without_passage == pytest.approx(likelihood(dense, answer, bare), abs=1e-3)
    assert abs(found.drop) > 0.01


@pytest.mark.parametrize("look_up", [0, 2])
def test_citations_cost_no_pass_of_the_model(session, monkeypatch, look_up):
    """The question's own pass when it is looked up, one for the prompt, one for each token but the last."""
    passes, forward = [], type(session.loaded.model.model).forward

    def counted(self, *arguments, **named):
        passes.append(1)
        return forward(self, *arguments, **named)

    monkeypatch.setattr(type(session.loaded.model.model), "forward", counted)
    counts = []
    for citations in (0, 3):
        answer = session.ask(QUESTION, sampling=PLAIN, citations=citations, look_up=look_up)
        counts.append(len(passes))
        passes.clear()
        assert bool(answer.citations) == bool(citations)
    assert counts == [bool(look_up) + 12] * 2


def test_an_empty_answer_rests_on_nothing(session):
    answer = replace(session.ask(QUESTION, sampling=PLAIN), ids=())
    with pytest.raises(RequestError, match="empty"):
        check_faithfulness(session, answer, Citation("", 0, 5, 1.0))


def test_an_answer_longer_than_the_window(session):
    """What leaves the window goes behind the Book's entries; the Book itself stays as it was."""
    entries = session.book.progress.entries
    answer = session.ask(QUESTION, sampling=replace(PLAIN, max_new_tokens=150))
    assert list(answer.ids) == greedy(session.loaded, session.state, session.question_ids(QUESTION), 150)
    assert session.state.memory_length == entries
