"""How sure a figure is: intervals of 95 %."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

_Z = 1.959963984540054
_DRAWS = 10_000


def wilson(right: float, total: float) -> tuple[float, float]:
    """For a share of right answers (Wilson, 1927); unlike the usual one it holds near 0 and 1 and for few examples.

    Args:
        right: Right answers.
        total: Questions; the number that they are worth need not be whole.

    Raises:
        ValueError: There are none.
    """
    if total < 1:
        raise ValueError("an interval needs at least one example")
    share = right / total
    middle = (share + _Z**2 / (2 * total)) / (1 + _Z**2 / total)
    half = _Z / (1 + _Z**2 / total) * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def bootstrap(count: int, figure: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """For any figure of examples: it is computed for many draws with replacement (Efron, 1979), always the same ones.

    Args:
        count: How many examples there are.
        figure: Computes it for each of many draws, [draws, count] numbers of examples; gives [draws].
    """
    draws = np.random.default_rng(0).integers(0, count, (_DRAWS, count))
    low, high = np.quantile(figure(draws), [0.025, 0.975])
    return float(low), float(high)


def of_scores(scores: Sequence[float], documents: Sequence[Hashable] | None = None) -> tuple[float, float, float]:
    """The mean of scores from 0 to 1 with its interval.

    For shares of right answers Wilson's, with as many questions as they are worth; see `worth`. For others a bootstrap
    over documents, since the questions on one document stand or fall together. Where there is no more than one
    document, both are over its questions and tell nothing of other documents.

    Args:
        scores: Of questions.
        documents: On which document each question is; None for one each.
    """
    mean = sum(scores) / len(scores)
    groups: dict[Hashable, list[float]] = {}
    for number, score in enumerate(scores):
        groups.setdefault(number if documents is None else documents[number], []).append(score)
    if len(groups) == 1:
        groups = {number: [score] for number, score in enumerate(scores)}
    summed = np.array([sum(group) for group in groups.values()])
    counts = np.array([len(group) for group in groups.values()])
    if all(score in (0.0, 1.0) for score in scores):
        questions = worth(summed, counts)
        return mean, *wilson(mean * questions, questions)
    return mean, *bootstrap(len(groups), lambda draws: summed[draws].sum(1) / counts[draws].sum(1))


def worth(right: np.ndarray, asked: np.ndarray) -> float:
    """As how many questions on documents of their own those count of which several share a document.

    The number of questions over the design effect (Kish, 1965), which is how much more the shares of documents differ
    than if documents did not matter, less what so few documents tell of that (Korn and Graubard, 1998: Student's t for
    them instead of that for questions). At least the number of documents, as if each were one question, and at most
    that of questions.

    Args:
        right: Right answers on each document, [documents].
        asked: Questions on each, [documents].
    """
    documents, questions = len(asked), float(asked.sum())
    if documents == questions:
        return questions
    share = right.sum() / questions
    alone = share * (1 - share) / questions  # the variance of the share if documents did not matter
    among = documents / (documents - 1) * float(((right - share * asked) ** 2).sum()) / questions**2
    effect = among / alone if alone else 1.0
    few = (student(int(questions) - 1) / student(documents - 1)) ** 2
    return min(max(questions / max(effect, 1.0) * few, documents), questions)


def student(freedom: int) -> float:
    """Between this and its negative lie 95 % of Student's t distribution of so many degrees of freedom.

    From 3 on by Fisher's expansion (1925), right to a thousandth.
    """
    if freedom < 3:
        return {1: 12.706204736, 2: 4.302652730}[freedom]
    z = _Z
    parts = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(part / freedom**power for power, part in enumerate(parts)))


def of_perplexity(losses: Sequence[float], tokens: Sequence[int]) -> tuple[float, float, float]:
    """The perplexity of passages with these summed losses and numbers of tokens, with its interval."""
    summed, counts = np.array(losses), np.array(tokens)
    interval = bootstrap(len(summed), lambda draws: np.exp(summed[draws].sum(1) / counts[draws].sum(1)))
    return math.exp(summed.sum() / counts.sum()), *interval
