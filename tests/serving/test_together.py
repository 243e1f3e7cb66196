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
from longfocus.serving.answering import Piece, Reply
from longfocus.serving.asked import asked_chat, asked_completion
from longfocus.serving.preparing import HEEDED, Preparing
from longfocus.serving.requests import ChatRequest, CompletionRequest, Wishes
from longfocus.serving.together import Together
from longfocus.serving.worker import Ended

QUESTION = "What is the river?"
PLAIN = Sampling(max_new_tokens=12, repetition_penalty=1.0)


@pytest.fixture(scope="module")
def session(endless, tiny_book_folder):
    return Session(StoredBook.open(tiny_book_folder), endless)


@pytest.fixture(scope="module")
def preparing(endless, session):
    return Preparing(endless, {"story": session}.__getitem__)


def wishes(**changed):
    return replace(Wishes("default@story", "story", PLAIN), **changed)


def answered(endless, *asked, at_once=8):
    """Whole answers to each of some questions, over as many turns as they take; their pieces come to them."""
    together, going, came = Together(endless, at_once), list(asked), {each: [] for each in asked}
    while going:
        again = []
        for each, item in together.turn(going):
            (again if item is None else came[each]).append(each if item is None else item)
        going = again
    found = []
    for each in asked:
        *items, end = came[each]
        assert isinstance(end, Ended)
        if end.error is not None:
            raise end.error
        texts = [item.text for item in items if isinstance(item, Reply)]
        if end.how == "done":
            assert "".join(sorted(texts)) == "".join(
                sorted(
                    "".join(item.text for item in items if isinstance(item, Piece) and item.choice == choice)
                    for choice in range(len(texts))
                )
            )
        found.append(sorted((item for item in items if isinstance(item, Reply)), key=lambda reply: reply.choice))
    return found


@pytest.fixture(scope="module")
def chatted(endless, preparing):
    def ask(question=QUESTION, turns=(), instructions="", seconds=60, **changed):
        request = ChatRequest(wishes(**changed), instructions, tuple(turns), question)
        return answered(endless, asked_chat(preparing, request, seconds))[0]

    return ask


def test_an_answer_is_the_one_of_the_command_line(chatted, session):
    plain = Session(session.book, session.loaded).ask(QUESTION, sampling=PLAIN)
    (reply,) = chatted()
    assert reply.text == plain.text
    assert (reply.citations, reply.looked_up) == (plain.citations, plain.looked_up)
    assert (reply.answer_tokens, reply.finish) == (12, "length")
    assert reply.prompt_tokens == plain.timings.question_tokens
    assert reply.book_tokens == len(session.book.ids)


def test_a_conversation_that_is_told_is_the_one_that_was_held(chatted, session, monkeypatch):
    """By the tokens of an answer that was written: `encode_text` need not cut its text into the same ones."""
    from longfocus.serving import preparing

    held = Conversation(session, PLAIN)
    *_, first = held.stream(QUESTION)
    *_, second = held.stream("And why?")
    encode, written = preparing.encode_text, list(first.ids)
    monkeypatch.setattr(
        preparing, "encode_text", lambda tokenizer, text: written[:-1] if text == "told" else encode(tokenizer, text)
    )
    monkeypatch.setattr(preparing, "end_of_answer", lambda *_: written[-1:])
    first, other = chatted("And why?", [(QUESTION, "told")], choices=2)
    assert first.text == other.text == second.text
    assert [each.start for each in first.citations] == [each.start for each in second.citations]
    assert [each.score for each in first.citations] == pytest.approx([each.score for each in second.citations], 1e-3)
    assert first.looked_up == other.looked_up == second.looked_up


def test_the_last_turns_of_a_conversation_are_heeded(chatted, monkeypatch):
    assert HEEDED == 32
    monkeypatch.setattr("longfocus.serving.preparing.HEEDED", 3)
    turns = [(f"What is number {number}?", "The lamp.") for number in range(5)]
    cut = chatted("And why?", turns[2:], look_up=0)[0]
    assert chatted("And why?", turns, look_up=0)[0].text == cut.text
    assert chatted("And why?", turns[3:], look_up=0)[0].prompt_tokens < cut.prompt_tokens


def test_turns_that_are_told_matter_and_leave_nothing_behind(chatted):
    alone = chatted("And why?")
    told = chatted("And why?", [(QUESTION, "The stone bridge.")])
    other = chatted("And why?", [(QUESTION, "Winter.")])
    assert told[0].text != alone[0].text
    assert told[0].text != other[0].text
    assert told[0].prompt_tokens > other[0].prompt_tokens > alone[0].prompt_tokens
    assert chatted("And why?")[0].text == alone[0].text
    assert chatted("And why?", [(QUESTION, "The stone bridge.")])[0].text == told[0].text


def test_an_answer_of_many_windows_can_be_told(chatted):
    (reply,) = chatted("And why?", [(QUESTION, "The river is the harbour road. " * 30)])
    assert reply.answer_tokens == 12


def test_instructions_stand_before_the_question_and_are_not_looked_up(chatted, session):
    (plain,), (instructed,) = chatted("Who?", look_up=2), chatted("Who?", instructions="Be brief.", look_up=2)
    assert instructed.looked_up == plain.looked_up[: len(instructed.looked_up)]
    assert instructed.text != plain.text
    assert instructed.prompt_tokens <= session.loaded.model.config.stride
    with pytest.raises(RequestError, match=r"^with what the system says before it, the question has .* shorten it"):
        chatted("Who?", instructions="river " * 60, look_up=2)


def test_a_stop_string_ends_an_answer_which_still_cites(chatted):
    (whole,) = chatted()
    stop = whole.text[5:7]
    (cut,) = chatted(stop=(stop,))
    assert cut.text == whole.text[: whole.text.index(stop)].strip()
    assert cut.finish == "stop"
    assert 0 < cut.answer_tokens < 12
    assert cut.citations
    (after,) = chatted()
    assert after.text == whole.text


def test_an_answer_whose_time_is_up_is_what_was_written(chatted):
    begun = time.perf_counter()
    (reply,) = chatted(seconds=0.3, sampling=replace(PLAIN, max_new_tokens=4000))
    assert reply.finish == "time"
    assert time.perf_counter() - begun < 10
    assert 0 < reply.answer_tokens < 4000
    assert reply.citations


def test_choices_have_seeds_of_their_own(chatted):
    free = replace(PLAIN, temperature=1.5, top_p=1.0, seed=3)
    first, second = chatted(choices=2, sampling=free)
    assert (first.choice, second.choice) == (0, 1)
    assert first.text != second.text
    assert [each.text for each in chatted(choices=2, sampling=free)] == [first.text, second.text]
    assert chatted(sampling=replace(free, seed=4))[0].text == second.text


def test_what_an_answer_may_rest_on(chatted, session):
    for uses in ("window", "nothing"):
        (reply,) = chatted(uses=uses)
        assert reply.text == session.ask(QUESTION, uses=uses, sampling=PLAIN).text.strip()
        assert (reply.citations, reply.book_tokens) == ((), 0)


def test_attention_along_the_text(chatted, session):
    (reply,) = chatted(attention=7, citations=1)
    assert len(reply.attention) == 7
    assert sum(reply.attention) == pytest.approx(1, abs=1e-4)
    best = reply.citations[0]
    assert reply.attention[best.start * 7 // len(session.book.text)] > 0


def test_without_a_book_the_model_answers_alone(chatted, session):
    (reply,) = chatted(book=None)
    assert reply.text == session.ask(QUESTION, uses="nothing", sampling=PLAIN).text.strip()
    assert (reply.citations, reply.book_tokens) == ((), 0)
    (told,) = chatted("And why?", [(QUESTION, "Winter.")], book=None)
    assert told.text != chatted("And why?", book=None)[0].text
    (long,) = chatted("And why?", [(QUESTION, "The river is the harbour road. " * 30)], book=None)
    assert long.prompt_tokens > 200
    with pytest.raises(RequestError, match="empty"):
        chatted(" ", book=None)


def test_texts_are_gone_on_with_as_they_stand(preparing, endless):
    """Without a Book as `generate` does it; white space belongs to the text."""
    request = CompletionRequest(wishes(book=None, choices=1), ("The river ", "The"))
    ((first, second),) = answered(endless, asked_completion(preparing, request, 60))
    ids = endless.tokenizer("The", return_tensors="pt")["input_ids"]
    made = endless.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, last_context_length=ids.shape[1]
    )
    text = endless.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert second.text == text.rstrip("\ufffd")
    assert (first.choice, second.choice) == (0, 1)


def test_texts_are_gone_on_with_behind_a_book(preparing, endless):
    def completed(*prompts, **changed):
        return answered(endless, asked_completion(preparing, CompletionRequest(wishes(**changed), prompts), 60))[0]

    long = "The river is long. " * 40
    both = completed("The river", long)
    assert all(reply.citations for reply in both)
    assert [reply.text for reply in both] == [completed("The river")[0].text, completed(long)[0].text]
    assert both[1].prompt_tokens > 64
    assert completed("The river", book=None)[0].text != both[0].text


def test_questions_on_one_book_are_answered_together_as_if_alone(preparing, endless):
    """Each by its own sampling, length, stop strings, instructions and citations; choices are answers of their own."""
    free = replace(PLAIN, temperature=1.5, top_p=1.0, seed=3)
    requests = [
        ChatRequest(wishes(), "", (), QUESTION),
        ChatRequest(wishes(sampling=replace(PLAIN, max_new_tokens=5), citations=0), "", (), "Who was there?"),
        ChatRequest(wishes(sampling=free, choices=2), "", (), "Why?"),
        ChatRequest(wishes(sampling=replace(free, seed=9, repetition_penalty=1.3)), "Be brief.", (), "Why?"),
        ChatRequest(wishes(stop=("e",), look_up=0, attention=5), "", (), "The lamp"),
        ChatRequest(wishes(look_up=0), "", (), " "),
    ]

    def asked():
        return [asked_chat(preparing, request, 60) for request in requests]

    good = asked()[:-1]
    assert len({each.group for each in good}) == 1
    alone = [answered(endless, each)[0] for each in good]
    for at_once in (8, 2):
        found = answered(endless, *asked()[:-1], at_once=at_once)
        for replies, wanted in zip(found, alone, strict=True):
            for reply, one in zip(replies, wanted, strict=True):
                same = ("text", "finish", "answer_tokens", "prompt_tokens", "looked_up", "choice")
                assert [getattr(reply, name) for name in same] == [getattr(one, name) for name in same]
                assert [each.start for each in reply.citations] == [each.start for each in one.citations]
                assert reply.attention == pytest.approx(one.attention, abs=1e-3)
                assert reply.at_once == at_once if at_once == 2 else reply.at_once == 6
    with pytest.raises(RequestError, match="empty"):
        answered(endless, *asked())


def test_who_leaves_takes_only_his_own_answer_along(preparing, endless):
    long = replace(PLAIN, max_new_tokens=40)
    first, second, third = (
        asked_chat(preparing, ChatRequest(wishes(sampling=long), "", (), question), 60)
        for question in ("Who was there?", QUESTION, "Why?")
    )
    (alone,) = answered(endless, asked_chat(preparing, ChatRequest(wishes(sampling=long), "", (), QUESTION), 60))
    third.cancelled.set()
    came = {first: [], second: [], third: []}
    for each, item in Together(endless, 8).turn([first, second, third]):
        came[each].append(item)
        if sum(map(len, came.values())) == 12:
            first.cancelled.set()
    assert came[third] == [Ended("cancelled")]
    assert came[first][-1] == Ended("cancelled")
    assert 0 < len(came[first]) < 30
    assert came[second][-2].text == alone[0].text
    assert came[second][-1] == Ended("done")


def test_a_long_preparation_takes_many_turns_and_can_be_left(preparing, endless, monkeypatch):
    monkeypatch.setattr("longfocus.serving.together.STEP_SECONDS", 0.0)
    turns = tuple((QUESTION, "The river is the harbour road. " * 9) for _ in range(4))
    together = Together(endless, 8)

    def asked(seconds=60):
        return asked_chat(preparing, ChatRequest(wishes(), "", turns, "And why?"), seconds)

    patient, steps = asked(), 0
    while [item for _, item in together.turn([patient])] == [None]:
        steps += 1
    assert steps > 8
    gone = asked()
    assert [item for _, item in together.turn([gone])] == [None]
    gone.cancelled.set()
    assert [item for _, item in together.turn([gone])] == [Ended("cancelled")]
    late = asked(seconds=0.0)
    ((_, end),) = together.turn([late])
    assert end.error.code == "took_too_long"
