"""Layers as they are written."""

import pytest

from longfocus.errors import RequestError
from longfocus.loading.layer_numbers import layer_numbers


@pytest.mark.parametrize(
    ("text", "layers"),
    [("8,12,16", [8, 12, 16]), ("5-8", [5, 6, 7, 8]), ("2, 5-6", [2, 5, 6]), ("", []), (None, None)],
)
def test_what_is_written_is_read(text, layers):
    assert layer_numbers(text) == layers


@pytest.mark.parametrize("text", ["a-b", "8;12", "1.5", "-3", "24-5"])
def test_what_cannot_be_read_is_told(text):
    with pytest.raises(RequestError, match="write them as 8,12,16 or 5-24"):
        layer_numbers(text)
