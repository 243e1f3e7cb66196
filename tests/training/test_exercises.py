"""Exercises: every answer lies in its document, everything comes from the seed, and no key stands twice in a batch."""

import random
import re

import pytest
import torch

from longfocus.errors import RequestError
from longfocus.loading.load import load
from longfocus.training.exercise_data import ExerciseBatches, Stage
from longfocus.training.exercise_kinds import EXERCISES
from longfocus.training.exercises import Writer
from longfocus.training.tales import Tale, TaleQuestion

TOKENS, ROOM = 900, 400


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return load(tiny_folder, window=64, dtype="float32").tokenizer


@pytest.fixture(scope="module")
def texts():
    """Prose of 300 made-up words, each several times."""
    draw = random.Random(0)
    words = ["".join(draw.choice("aeioubdklmnrst") for _ in range(draw.randint(4, 8))) for _ in range(300)]
    return [" ".join(draw.choice(words) for _ in range(8000)) for _ in range(2)]


TALE = Tale(
    "a tale",
    ("Ebba lost a ring.", "Her brother Odd dived for it.", "He found a boot with nine coins.", "Ebba laughed."),
    (
        TaleQuestion("What did Ebba lose?", ("a ring", "ring"), (0,)),
        TaleQuestion("How many coins were in the boot?", ("nine", "nine coins"), (2,)),
    ),
)


@pytest.fixture
def writer(tokenizer, texts):
    return Writer(tokenizer, texts, 7, [TALE])


def turns(writer: Writer, asked: list[int], labels: list[int]) -> list[tuple[str, str]]:
    """The questions and answers, told apart by the labels."""
    found, question, answer = [], [], []
    for token, label in [*zip(asked, labels, strict=True), (None, -100)]:
        if label == -100:
            if answer:
                found.append((writer.tokenizer.decode(question), writer.tokenizer.decode(answer[:-1])))
                question, answer = [], []
            question.append(token)
        else:
            assert label == token
            answer.append(token)
    return found


@pytest.mark.parametrize("kind", EXERCISES)
@pytest.mark.parametrize("seed", range(4))
def test_answers_lie_in_the_document(tokenizer, texts, kind, seed):
    writer = Writer(tokenizer, texts, seed, [TALE])
    exercise = writer.write(kind, TOKENS, ROOM)
    assert len(exercise.document) == TOKENS
    assert len(exercise.asked) == len(exercise.labels) <= ROOM
    document = writer.tokenizer.decode(exercise.document)
    asked = turns(writer, exercise.asked, exercise.labels)
    assert asked
    for question, answer in asked[:-1] if len(exercise.asked) == ROOM else asked:
        needed = re.findall(r"\d+", answer) or [answer.rstrip(".").strip()]
        for piece in needed:
            assert piece in document, (kind, question, answer)


@pytest.mark.parametrize("kind", EXERCISES)
def test_what_is_looked_up_stands_in_the_document(tokenizer, texts, kind):
    """And what the answer needs is among it nine times in ten."""
    found = asked = 0
    for seed in range(10):
        writer = Writer(tokenizer, texts, seed, [TALE])
        exercise = writer.write(kind, TOKENS, 3 * ROOM, looked_up=1.0)
        document = " ".join(tokenizer.decode(exercise.document).split())
        for text, answer in turns(writer, exercise.asked, exercise.labels)[:-1]:
            if "Passages of it:" not in text:  # there was no room for any
                continue
            *passages, question = text.partition("Passages of it:")[2].partition("assistant")[0].strip().split("\n\n")
            assert question
            for passage in passages:
                if kind not in ("facts", "tales", "quotations"):  # those have pages of which the last may be cut
                    assert " ".join(passage.split()) in document
            asked += 1
            values = re.findall(r"\d+", answer)[-1:] or [answer.rstrip(".")]
            found += all(any(value in passage for passage in passages) for value in values)
    if asked:
        assert found >= 0.7 * asked or kind in ("quotations", "topics"), (found, asked)


def test_a_tale_is_told_in_order_between_pages(writer, texts):
    exercise = writer.write("tales", TOKENS, ROOM)
    document = writer.tokenizer.decode(exercise.document)
    places = [document.index(sentence) for sentence in TALE.sentences]
    assert places == sorted(places)
    with pytest.raises(RequestError, match="need retold stories"):
        Writer(writer.tokenizer, texts, 0).write("tales", TOKENS, ROOM)


def test_two_hops_need_two_sentences(writer):
    exercise = writer.write("hops", TOKENS, ROOM)
    document = writer.tokenizer.decode(exercise.document)
    for _, answer in turns(writer, exercise.asked, exercise.labels)[:-1]:
        first, second = (part.strip().rstrip(".") for part in answer.split(". "))
        assert first in document
        assert second in document


def test_a_book_goes_on_where_the_document_ends(writer, texts):
    exercise = writer.write("continuation", TOKENS, ROOM)
    assert (len(exercise.document), len(exercise.asked)) == (TOKENS, ROOM)
    assert exercise.labels == [-100, *exercise.asked[1:]]
    end = writer.tokenizer.decode(exercise.document[-40:]) + writer.tokenizer.decode(exercise.asked[:40])
    assert any(end in text for text in texts)


def test_no_key_stands_twice_until_a_new_batch(writer):
    keys = [writer.key() for _ in range(500)]
    assert len(set(keys)) == 500
    names = [writer.made_up() for _ in range(500)]
    assert len(set(names)) == 500


def test_short_books_are_refused(tokenizer):
    with pytest.raises(RequestError, match="100 words that come twice, these have 0"):
        Writer(tokenizer, ["once upon a time"], 0)


def test_a_document_longer_than_any_book_is_refused(tokenizer, texts):
    with pytest.raises(RequestError, match=r"no book has 49999. tokens in one piece"):
        Writer(tokenizer, texts, 0).write("quotations", 500_000, ROOM)


STAGES = (Stage(3, 4, (300, 500), {"records": 1.0, "facts": 1.0}, 200), Stage(2, 2, (700,), room=150))


def test_batches_come_from_their_number_alone(tokenizer, texts):
    one, other = (ExerciseBatches(tokenizer, texts, STAGES, 3) for _ in range(2))
    assert len(one) == 5
    in_order = [one[number] for number in range(5)]
    for number in (4, 0, 2, 3, 1):
        again = other[number]
        assert all(torch.equal(again[name], in_order[number][name]) for name in ("documents", "asked", "labels"))
    assert not torch.equal(in_order[0]["asked"], in_order[1]["asked"])
    different = ExerciseBatches(tokenizer, texts, STAGES, 4)[4]
    assert not torch.equal(different["documents"], in_order[4]["documents"])


def test_batches_have_the_shapes_of_their_stage(tokenizer, texts):
    batches = ExerciseBatches(tokenizer, texts, STAGES, 3)
    for number in range(5):
        batch, stage = batches[number], batches.stage(number)
        assert batch["documents"].shape[0] == stage.rows == (4 if number < 3 else 2)
        assert batch["documents"].shape[1] in stage.tokens
        assert batch["asked"].shape == batch["labels"].shape
        assert batch["asked"].shape[1] <= stage.room
        counts = batch["labels"] != -100
        assert bool(counts.any(dim=1).all())
        assert torch.equal(batch["labels"][counts], batch["asked"][counts])
    with pytest.raises(IndexError):
        batches[5]


def test_unknown_kinds_are_refused(tokenizer, texts):
    with pytest.raises(RequestError, match="no exercises riddles; there are continuation, facts"):
        ExerciseBatches(tokenizer, texts, (Stage(1, 1, (100,), {"riddles": 1.0}),), 0)
