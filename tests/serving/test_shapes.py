"""The form of answers, whatever the order in which they ended."""

from itertools import permutations

import pytest

from longfocus.asking.generation import Sampling
from longfocus.serving.answering import Reply
from longfocus.serving.requests import Wishes
from longfocus.serving.shapes import Shape

BOOK, PROMPTS = 100, (3, 20)
"""Tokens of the Book, and of two prompts behind it."""


def replies(choices):
    """Answers to two prompts, so many to each."""
    numbers = range(len(PROMPTS) * choices)
    return [Reply(each, f"text {each}", "stop", BOOK, PROMPTS[each // choices], 7, 0.1, 0.2) for each in numbers]


@pytest.mark.parametrize("stream", [False, True])
def test_order_of_ending_changes_nothing(stream):
    made = Shape("text", Wishes("default@story", "story", Sampling(), choices=2, stream=stream, counts=stream))
    for ended in permutations(replies(2)):
        if stream:
            (last,) = made.last(ended)
        else:
            last = made.whole(ended)
            assert [choice["index"] for choice in last["choices"]] == [0, 1, 2, 3]
            assert [choice["text"] for choice in last["choices"]] == ["text 0", "text 1", "text 2", "text 3"]
        assert last["usage"] == {
            "prompt_tokens": 2 * BOOK + sum(PROMPTS),
            "completion_tokens": 4 * 7,
            "total_tokens": 2 * BOOK + sum(PROMPTS) + 4 * 7,
            "prompt_tokens_details": {"cached_tokens": 2 * BOOK},
        }
