"""Keys and values: an object of JSON that holds every pair once, as long as asked for."""

import json
import uuid

import pytest

from longfocus.errors import RequestError
from longfocus.evaluation.pieces import most_pieces
from longfocus.evaluation.task import Length, Question
from longfocus.evaluation.tasks.key_values import OPENING, KeyValues
from longfocus.evaluation.tasks.lines import LettersLines, Lines, UuidLines
from longfocus.loading.prompts import encode_text
from tests.evaluation.test_tasks import by_words


def held(sheet):
    assert sheet.document.startswith(OPENING)
    return json.loads(sheet.document.removeprefix(OPENING))


@pytest.mark.parametrize("pairs", [1, 2, 75, 500])
def test_pairs_of_uuids(pairs):
    sheet = KeyValues().sheet(Length(pairs, "pairs"), 0, by_words, 25, 7)
    found = held(sheet)
    assert len(found) == len(set(found.values()) - set(found)) == pairs
    assert {uuid.UUID(text).version for text in (*found, *found.values())} == {4}
    assert len(sheet.questions) == min(pairs, 25) == len({question.text for question in sheet.questions})
    for question in sheet.questions:
        key = question.text.split('"')[1]
        assert question.answers == (found[key],)
        assert list(found).index(key) == round(question.depth * pairs)


def test_any_depth():
    depths = [q.depth for n in range(20) for q in KeyValues().sheet(Length(50, "pairs"), n, by_words, 25, 0).questions]
    for tenth in range(10):
        assert sum(tenth / 10 <= depth < (tenth + 1) / 10 for depth in depths) > 20


def test_as_many_pairs_as_fit(tiny_model):
    def count(text):
        return len(encode_text(tiny_model.tokenizer, text))

    for tokens in (300, 3000, 20_000):
        sheet = KeyValues().sheet(Length(tokens), 0, count, 3, 0)
        found = held(sheet)
        longer = KeyValues().sheet(Length(tokens + 200), 0, count, 3, 0)
        assert tokens - 150 < count(sheet.document) <= tokens
        assert len(held(longer)) > len(found)
    with pytest.raises(RequestError, match="no room for a pair"):
        KeyValues().sheet(Length(60), 0, len, 3, 0)


def test_a_value_that_stands_in_the_answer_is_right():
    value = "1a7fa953-98bd-4445-981e-aae85e31a299"
    question = Question("", (value,))
    answers = (f'It is "{value.upper()}".', value[:-1], "")
    assert [KeyValues().score(question, answer) for answer in answers] == [1, 0, 0]


@pytest.mark.parametrize(("task", "value"), [(LettersLines(), "FAEFDB"), (UuidLines(), str(uuid.UUID(int=5 << 90)))])
def test_lines_with_other_values(task, value):
    sheet = task.sheet(Length(40, "lines"), 0, by_words, 40, 0)
    numbers = Lines().sheet(Length(40, "lines"), 0, by_words, 40, 0)
    assert "numerical" in numbers.document and "numerical" not in sheet.document
    lines = dict(line.split(": REGISTER_CONTENT is ") for line in sheet.document.split("\n") if "<" in line[-50:])
    values = {
        key.removeprefix("line "): content.strip("<>") for key, content in lines.items() if key.startswith("line ")
    }
    assert len(values) == len(sheet.questions) == 40
    for question in sheet.questions:
        key = question.text.split("in line ")[1].split("?")[0]
        assert question.answers == (values[key],)
        assert task.score(question, f"In line {key} it is <{values[key]}>.") == 1
    question = Question("", (value,))
    assert task.score(question, f"not {sheet.questions[0].answers[0]} but {value}") == 1
    assert task.score(question, f"{value}, not {sheet.questions[0].answers[0]}") == 0
    assert task.score(question, f"x{value}x"[:-3]) == 0


@pytest.mark.parametrize("seed", range(6))
def test_most_pieces(seed):
    """Against looking at each number, on texts whose pieces have few tokens, many, none, or more and more."""
    import random

    chance = random.Random(seed)
    sizes = [[chance.choice((0, 1, 2, 40)), chance.randint(15, 30), 1 + 9 * (n > 400)][seed % 3] for n in range(700)]
    counts = [5 + sum(sizes[:n]) for n in range(701)]
    looked = []

    def count(text):
        looked.append(text)
        return counts[len(text)]

    for tokens in (5, 6, counts[300], counts[300] + 1, counts[-1], counts[-1] + 1000):
        looked.clear()
        found = counts[most_pieces(lambda n: "x" * n, 700, tokens, count)]
        assert found == max(each for each in counts if each <= tokens)
        assert len(looked) < 20
    with pytest.raises(RequestError, match="the shortest has 5"):
        most_pieces(lambda n: "x" * n, 700, 4, count)
