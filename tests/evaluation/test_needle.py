"""A needle without word overlap: hidden at ten depths, in a text of exactly so many tokens, with one answer."""

import re

import pytest

from longfocus.errors import RequestError
from longfocus.evaluation.task import Length, Question
from longfocus.evaluation.tasks.needle import ASKED, FACTS, NAMES, BookNeedle, FillingNeedle, sentence_end
from longfocus.loading.prompts import encode_text
from tests.evaluation.test_tasks import by_words

_COMMON = {"the", "a", "an", "to", "of", "is", "in", "on", "at", "for", "and", "has", "who", "been", "with"}


def said(text):
    return {word for word in re.findall(r"\w+", text.lower()) if word not in _COMMON}


@pytest.fixture(params=["books", "filling"])
def task(request, reporting_data):
    return BookNeedle(reporting_data) if request.param == "books" else FillingNeedle()


@pytest.mark.parametrize("hidden", FACTS, ids=lambda hidden: hidden.question)
def test_questions_have_no_word_of_their_fact(hidden):
    question = said(ASKED.format(hidden.question))
    assert not question & said(hidden.fact.format(""))
    beginnings = {word[:5] for word in question if len(word) > 4}  # of other forms of a word
    assert not any(word.startswith(tuple(beginnings)) for word in said(hidden.fact))
    assert hidden.fact.count("{}") == 1
    assert any(word.lower() in hidden.question.lower() for word in hidden.subject)
    assert not any(word.lower() in hidden.fact.lower() for word in hidden.subject)


def test_facts_and_names():
    assert len(FACTS) >= 20
    assert len({hidden.question for hidden in FACTS}) == len(FACTS)
    assert not [name for name in NAMES for other in NAMES if name != other and name in other]
    facts = " ".join(hidden.fact for hidden in FACTS)
    assert not [name for name in NAMES if name in facts]


@pytest.mark.parametrize("tokens", [100, 1000, 20_011])
def test_lengths_are_exact(tokens, task, tiny_model):
    def count(text):
        return len(encode_text(tiny_model.tokenizer, text))

    sheet = task.sheet(Length(tokens), 2, count, 1, 0)
    assert count(sheet.document) == tokens


def test_the_fact_stands_there_once(task):
    for number in range(10):
        sheet = task.sheet(Length(2000), number, by_words, 1, 3)
        (question,) = sheet.questions
        (name,) = question.answers
        assert sheet.document.count(name) == 1
        (hidden,) = [hidden for hidden in FACTS if ASKED.format(hidden.question) == question.text]
        place = sheet.document.index(hidden.fact.format(name))
        assert not any(word in sheet.document for word in hidden.subject)
        assert place == 0 or sheet.document[place - 1] in " \n"
        assert place / len(sheet.document) == question.depth


def test_needles_lie_everywhere(task):
    depths = [task.sheet(Length(3000), number, by_words, 1, 0).questions[0].depth for number in range(10)]
    assert sorted(depths) == pytest.approx([0.05 + 0.1 * tenth for tenth in range(10)], abs=0.04)
    assert depths != sorted(depths)


def test_pages_go_on_in_the_next_book(reporting_data):
    task = BookNeedle(reporting_data)
    longest = sum(map(len, task._stories))
    assert len(task.sheet(Length(longest // 2), 0, len, 1, 0).document) == longest // 2
    with pytest.raises(RequestError, match="all pages of needle have fewer"):
        task.sheet(Length(longest + 1000), 0, len, 1, 0)


def test_no_fact_where_pages_have_another_answer(monkeypatch):
    told = [f"There was talk of {hidden.subject[0]}. " for hidden in FACTS]
    monkeypatch.setattr(FillingNeedle, "pages", lambda self, chance: iter(told[:-1] + ["So it is. "] * 10_000))
    found = {FillingNeedle().sheet(Length(500), number, by_words, 1, 0).questions[0].text for number in range(8)}
    assert found == {ASKED.format(FACTS[-1].question)}
    monkeypatch.setattr(FillingNeedle, "pages", lambda self, chance: iter(told * 100))
    with pytest.raises(RequestError, match="speak of all"):
        FillingNeedle().sheet(Length(500), 0, by_words, 1, 0)


@pytest.mark.parametrize(("answer", "score"), [("Bram", 1), ("It was bram.", 1), ("Abraham", 0), ("Brams", 0), ("", 0)])
def test_the_name_is_enough(answer, score):
    assert FillingNeedle().score(Question("", ("Bram",)), answer) == score


def test_sentence_ends():
    text = 'One. Two!\n\n"Three." Four'
    assert [text[: sentence_end(text, before)] for before in (3, 5, 12, 25)] == [
        "",
        "One. ",
        "One. Two!\n\n",
        "One. Two!\n\n",
    ]
