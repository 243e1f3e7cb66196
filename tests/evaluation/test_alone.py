"""The last window alone: a fresh prompt, of which nothing that came before it can be told."""

import pytest
import torch

from longfocus.evaluation.subjects.book import BookSubject
from longfocus.evaluation.task import DoesNotFit, Writing
from longfocus.loading.prompts import encode_text
from longfocus.memory.book import StoredBook
from tests.conftest import story

TEXT, OTHER, FOLLOWING = story(300), story(300, seed=8), " " + story(30, seed=3)


def ids_of(tiny_model, text):
    return encode_text(tiny_model.tokenizer, text)


def asked_of(tiny_model, text, uses="window"):
    with BookSubject(tiny_model, uses).read(text, "text") as opened:
        return opened.loss(FOLLOWING), opened.continued(FOLLOWING, Writing(5)), opened.reply("Where is it?", 5)


def test_only_the_last_window_matters(tiny_model):
    """Two documents that end alike are one to it; with memory they are two."""
    window = tiny_model.model.config.window
    end = TEXT[-1200:]
    assert len(ids_of(tiny_model, end)) > 3 * window
    assert asked_of(tiny_model, TEXT) == asked_of(tiny_model, OTHER + end)
    assert asked_of(tiny_model, TEXT, "memory")[0] != asked_of(tiny_model, OTHER + end, "memory")[0]


def test_losses_are_those_of_a_fresh_prompt(tiny_model):
    window, opening = tiny_model.model.config.window, [tiny_model.tokenizer.bos_token_id]
    following = ids_of(tiny_model, FOLLOWING)
    step = window // 2
    assert len(following) > step  # so in two pieces
    document, total = ids_of(tiny_model, TEXT), 0.0
    opening = opening if tiny_model.tokenizer("x")["input_ids"][0] == opening[0] else []
    for start in range(0, len(following), step - len(opening)):
        piece = following[start : start + step - len(opening)]
        room = window - len(opening) - len(piece)
        prompt = opening + (document + following[:start])[-room:] + piece
        with torch.inference_mode():  # nothing but these tokens, from position 0
            logits = tiny_model.model(torch.tensor([prompt]), last_context_length=len(prompt)).logits[0].log_softmax(-1)
        places = range(len(prompt) - len(piece) + (start == 0), len(prompt))
        total -= sum(float(logits[place - 1, prompt[place]]) for place in places)
    (loss, tokens), _, _ = asked_of(tiny_model, TEXT)
    assert tokens == len(following) - 1
    assert loss == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("uses", ["window", "nothing"])
def test_it_answers_as_ask_does(tiny_model, tiny_book_folder, uses):
    from longfocus import Sampling
    from longfocus.asking.session import Session

    book = StoredBook.open(tiny_book_folder)
    for most in (6, 70):  # more than the window of 64 has room for
        sampling = Sampling(most, repetition_penalty=1.0)
        expected = Session(book, tiny_model).ask("Who?", uses=uses, sampling=sampling).text
        assert BookSubject(tiny_model, uses).opened(book).answer("Who?", most) == expected


def test_no_book_is_read_for_it(tiny_model, tmp_path):
    with BookSubject(tiny_model, "window", tmp_path).read(TEXT, "chat") as opened:
        assert not list(tmp_path.iterdir())
        assert opened.reply("Who?", 5).prompt_tokens == tiny_model.model.config.window - 5


@pytest.mark.parametrize("uses", ["window", "memory"])
def test_questions_too_long_for_the_window(tiny_model, uses):
    with (
        BookSubject(tiny_model, uses).read(TEXT[:900], "chat") as opened,
        pytest.raises(DoesNotFit, match="the window has room for"),
    ):
        opened.answer(TEXT, 5)


def test_results_of_what_had_seen_more_are_not_joined(tiny_model):
    assert BookSubject(tiny_model, "window").identity.endswith(" alone")
    assert not BookSubject(tiny_model).identity.endswith(" alone")
