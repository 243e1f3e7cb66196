"""Texts of an exact number of tokens, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Callable

from longfocus.errors import RequestError
from longfocus.evaluation.task import Count

_SAMPLE = 4096
_TRIES = 40


def fit(make: Callable[[int], str], tokens: int, count: Count) -> str:
    """The text `make(n)` that has exactly so many tokens, or as few less as can be.

    Args:
        make: Gives a text that grows with n, about alike with each.
        tokens: How many.
        count: How many tokens a text has.

    Raises:
        RequestError: Even the shortest text has more.
    """
    fewest = count(make(0))
    if fewest > tokens:
        raise RequestError(f"a document of {tokens} tokens was asked for; the shortest has {fewest}")
    each = max((count(make(_SAMPLE)) - fewest) / _SAMPLE, 1e-6)
    low, high = (0, fewest), None  # a known n with at most the tokens wanted, one with more
    n = round((tokens - fewest) / each)
    for _ in range(_TRIES):
        found = count(make(n))
        if found <= tokens:
            low = max(low, (n, found))
            if found == tokens:
                break
        else:
            high = min(high or (n, found), (n, found))
        n = low[0] + max(round((tokens - low[1]) / each), 1)
        if high is not None and n >= high[0]:
            n = (low[0] + high[0]) // 2
            if n == low[0]:
                break
    return make(low[0])
