"""Intervals: Wilson's against published values, the others against what they are for."""

import math

import numpy as np
import pytest

from longfocus.evaluation.intervals import of_perplexity, of_scores, student, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 10, 0.0179, 0.4042), (81, 263, 0.2553, 0.3662)],
)
def test_wilson(right, total, low, high):
    """The last is the example of Newcombe, 1998, table I."""
    assert wilson(right, total) == pytest.approx((low, high), abs=6e-5)


def test_wilson_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_most_intervals_hold_the_truth():
    """Scores between 0 and 1: of many samples, about 95 % have the true mean in their interval."""
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        _, low, high = of_scores([float(score) for score in draw.beta(2, 5, size=60)])
        held += low <= 2 / 7 <= high
    assert 88 <= held <= 99


def test_perplexity_weighs_tokens():
    score, low, high = of_perplexity([10.0, 300.0], [10, 100])
    assert score == pytest.approx(math.exp(310 / 110))
    assert math.exp(1) == pytest.approx(low) and math.exp(3) == pytest.approx(high)


def test_questions_on_one_document_stand_together():
    """Two documents, one answered and one not: the interval is that of two documents, not of twenty questions."""
    scores = [0.9] * 10 + [0.1] * 10
    _, low, high = of_scores(scores, ["a"] * 10 + ["b"] * 10)
    assert (low, high) == pytest.approx((0.1, 0.9))
    alone = of_scores(scores)
    assert alone == (of_scores(scores, ["a"] * 20)) == of_scores(scores, list(range(20)))
    assert low < alone[1] and alone[2] < high


def test_shares_have_wilsons_interval():
    """Of questions with a document each, and of questions on the only document."""
    for documents in (None, ["a"] * 10, list(range(10))):
        assert of_scores([1.0] * 8 + [0.0] * 2, documents) == (0.8, *wilson(8, 10))


def test_right_answers_on_one_document_stand_together():
    """Four documents, of which two are answered: as sure as four questions. Where they are alike, less is lost."""
    documents = [document for document in range(4) for _ in range(25)]
    apart = [float(document < 2) for document in documents]
    assert of_scores(apart, documents) == (0.5, *wilson(2, 4))
    alike = [float(number % 2) for number in range(100)]
    _, low, high = of_scores(alike, documents)
    assert wilson(2, 4)[0] < low < wilson(50, 100)[0]
    assert wilson(50, 100)[1] < high < wilson(2, 4)[1]
    score, low, high = of_scores([1.0] * 100, documents)
    assert (score, high) == (1.0, 1.0)
    assert wilson(4, 4)[0] < low < wilson(100, 100)[0]


@pytest.mark.parametrize("documents", [4, 20])
def test_most_intervals_of_shared_documents_hold_the_truth(documents):
    """Documents with 25 questions each, of which some have easier ones: questions alone would be far too sure."""
    draw = np.random.default_rng(2)
    names = [name for name in range(documents) for _ in range(25)]
    held = alone = 0
    for _ in range(300):
        ease = draw.beta(4, 2, size=documents)
        scores = [float(draw.random() < ease[name]) for name in names]
        _, low, high = of_scores(scores, names)
        held += low <= 4 / 6 <= high
        low, high = wilson(sum(scores), len(scores))
        alone += low <= 4 / 6 <= high
    assert held >= 0.93 * 300
    assert alone < 0.75 * 300


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (99, 1.984)]
)
def test_students_t(freedom, value):
    """By any table of it."""
    assert student(freedom) == pytest.approx(value, abs=4e-3)
