"""Answers for clients: as `longfocus chat` gives them, however a client tells what was said before."""

import time
from dataclasses import replace

import pytest
import torch

from longfocus.asking.conversation import Conversation
from longfocus.asking.generation import Sampling
from longfocus.asking.session import Session
from longfocus.errors import RequestError
from longfocus.memory.book import StoredBook
from longfocus.serving.answering import Answering, Piece, Reply
from longfocus.serving.endings import Ending
from longfocus.serving.requests import ChatRequest, CompletionRequest, Wishes
from longfocus.serving.sessions import Retold, ServedSession

QUESTION = "What is the river?"
PLAIN = Sampling(max_new_tokens=12, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def session(endless, tiny_book_folder):
    return ServedSession(StoredBook.open(tiny_book_folder), endless)


@pytest.fixture(scope="module")
def answering(endless, session):
    return Answering(endless, {"story": session}.__getitem__)


def wishes(**changed):
    return replace(Wishes("default@story", "story", PLAIN), **changed)


def replies(stream):
    """Whole answers; pieces of each are checked to come to it."""
    pieces, whole = {}, []
    for item in stream:
        if isinstance(item, Piece):
            pieces[item.choice] = pieces.get(item.choice, "") + item.text
        else:
            assert isinstance(item, Reply)
            assert pieces.get(item.choice, "") == item.text
            whole.append(item)
    return whole


def chatted(answering, question=QUESTION, turns=(), instructions="", **changed):
    return replies(answering.chat(ChatRequest(wishes(**changed), instructions, tuple(turns), question), 60))


def test_an_answer_is_the_one_of_the_command_line(answering, session):
    plain = Session(session.book, session.loaded).ask(QUESTION, sampling=PLAIN)
    (reply,) = chatted(answering)
    assert reply.text == plain.text
    assert (reply.citations, reply.looked_up) == (plain.citations, plain.looked_up)
    assert (reply.answer_tokens, reply.finish) == (12, "length")
    assert reply.prompt_tokens == plain.timings.question_tokens
    assert reply.book_tokens == len(session.book.ids)


def test_a_conversation_that_is_told_is_the_one_that_was_held(session):
    """By the tokens of an answer that was written: `encode_text` need not cut its text into the same ones."""
    held = Conversation(session.for_request(Ending(trims=False)), PLAIN)
    *_, first = held.stream(QUESTION)
    *_, second = held.stream("And why?")

    class Exact(Retold):
        """Told by tokens."""

    told = Exact(session.for_request(Ending()), session, PLAIN, 3, None)
    written = list(first.ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longfocus.serving.sessions.encode_text", lambda _, text: written[:-1])
        patch.setattr("longfocus.serving.sessions.end_of_answer", lambda *_: written[-1:])
        told.retell(QUESTION, first.text)
    *_, again = told.stream("And why?")
    assert again.ids == second.ids
    assert again.citations == second.citations


def test_turns_that_are_told_matter_and_leave_nothing_behind(answering):
    alone = chatted(answering, "And why?")
    told = chatted(answering, "And why?", [(QUESTION, "The stone bridge.")])
    other = chatted(answering, "And why?", [(QUESTION, "Winter.")])
    assert told[0].text != alone[0].text
    assert told[0].text != other[0].text
    assert told[0].prompt_tokens > other[0].prompt_tokens > alone[0].prompt_tokens
    assert chatted(answering, "And why?")[0].text == alone[0].text
    assert chatted(answering, "And why?", [(QUESTION, "The stone bridge.")])[0].text == told[0].text


def test_an_answer_of_many_windows_can_be_told(answering):
    (reply,) = chatted(answering, "And why?", [(QUESTION, "The river is the harbour road. " * 30)])
    assert reply.answer_tokens == 12


def test_instructions_stand_before_the_question_and_are_not_looked_up(session):
    instructed = session.for_request(Ending(), "Be brief.")
    plain, prompt = session.looked_up("Who?", 2), instructed.looked_up("Who?", 2)
    assert prompt.question == "Be brief.\n\nWho?"
    assert prompt.looked_up == plain.looked_up[: len(prompt.looked_up)]
    assert len(prompt.ids) <= session.loaded.model.config.stride
    assert torch.equal(prompt.attention.attention, plain.attention.attention)
    with pytest.raises(RequestError, match="shorten it"):
        session.for_request(Ending(), "river " * 60).looked_up("Who?", 2)


def test_a_stop_string_ends_an_answer_which_still_cites(answering):
    (whole,) = chatted(answering)
    stop = whole.text[5:7]
    (cut,) = chatted(answering, stop=(stop,))
    assert cut.text == whole.text[: whole.text.index(stop)].strip()
    assert cut.finish == "stop"
    assert 0 < cut.answer_tokens < 12
    assert cut.citations
    (after,) = chatted(answering)
    assert after.text == whole.text


def test_an_answer_whose_time_is_up_is_what_was_written(answering):
    request = ChatRequest(wishes(sampling=replace(PLAIN, max_new_tokens=4000)), "", (), QUESTION)
    begun = time.perf_counter()
    (reply,) = replies(answering.chat(request, 0.3))
    assert reply.finish == "time"
    assert time.perf_counter() - begun < 10
    assert 0 < reply.answer_tokens < 4000
    assert reply.citations


def test_choices_have_seeds_of_their_own(answering):
    free = replace(PLAIN, temperature=1.5, top_p=1.0, seed=3)
    first, second = chatted(answering, choices=2, sampling=free)
    assert (first.choice, second.choice) == (0, 1)
    assert first.text != second.text
    assert [each.text for each in chatted(answering, choices=2, sampling=free)] == [first.text, second.text]
    assert chatted(answering, sampling=replace(free, seed=4))[0].text == second.text


def test_what_an_answer_may_rest_on(answering, session):
    for uses in ("window", "nothing"):
        (reply,) = chatted(answering, uses=uses)
        assert reply.text == session.ask(QUESTION, uses=uses, sampling=PLAIN).text.strip()
        assert (reply.citations, reply.book_tokens) == ((), 0)


def test_attention_along_the_text(answering, session):
    (reply,) = chatted(answering, attention=7, citations=1)
    assert len(reply.attention) == 7
    assert sum(reply.attention) == pytest.approx(1, abs=1e-4)
    best = reply.citations[0]
    assert reply.attention[best.start * 7 // len(session.book.text)] > 0


def test_without_a_book_the_model_answers_alone(answering, session):
    (reply,) = chatted(answering, book=None)
    assert reply.text == session.ask(QUESTION, uses="nothing", sampling=PLAIN).text.strip()
    assert (reply.citations, reply.book_tokens) == ((), 0)
    (told,) = chatted(answering, "And why?", [(QUESTION, "Winter.")], book=None)
    assert told.text != chatted(answering, "And why?", book=None)[0].text
    (long,) = chatted(answering, "And why?", [(QUESTION, "The river is the harbour road. " * 30)], book=None)
    assert long.prompt_tokens > 200
    with pytest.raises(RequestError, match="empty"):
        chatted(answering, " ", book=None)


def test_texts_are_gone_on_with_as_they_stand(answering, endless):
    """Without a Book as `generate` does it; white space belongs to the text."""
    request = CompletionRequest(wishes(book=None, choices=1), ("The river ", "The"))
    first, second = replies(answering.complete(request, 60))
    ids = endless.tokenizer("The", return_tensors="pt")["input_ids"]
    made = endless.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, last_context_length=ids.shape[1]
    )
    text = endless.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert second.text == text.rstrip("\ufffd")
    assert (first.choice, second.choice) == (0, 1)


def test_texts_are_gone_on_with_behind_a_book(answering):
    (reply,) = replies(answering.complete(CompletionRequest(wishes(), ("The river",)), 60))
    assert reply.citations
    (long,) = replies(answering.complete(CompletionRequest(wishes(), ("The river is long. " * 40,)), 60))
    assert long.prompt_tokens > 64
    (alone,) = replies(answering.complete(CompletionRequest(wishes(book=None), ("The river",)), 60))
    assert alone.text != reply.text
