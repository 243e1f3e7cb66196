"""Where a text ends does not depend on the pieces in which it comes."""

from hypothesis import given
from hypothesis import strategies as st

from longfocus.serving.stops import StopGate

LETTERS = st.text("ab \n", max_size=24)


def cut_by_hand(text, stops):
    """As if letters came one by one: the stop string that is complete first ends it, the longest of several."""
    for end in range(1, len(text) + 1):
        complete = [each for each in stops if text[:end].endswith(each)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab \n", min_size=1, max_size=4), max_size=3), st.booleans())
def test_a_text_ends_at_its_first_stop_string(pieces, stops, trims):
    gate = StopGate(stops, trims)
    out = [gate.feed(piece) for piece in pieces]
    wanted, stopped = cut_by_hand("".join(pieces), stops)
    assert "".join(out) + gate.end() == (wanted.strip() if trims else wanted)
    assert gate.stopped == stopped


@given(st.lists(LETTERS, max_size=8))
def test_without_stop_strings_nothing_is_held_back(pieces):
    gate = StopGate()
    assert [gate.feed(piece) for piece in pieces] == pieces


def test_only_what_may_become_a_stop_string_is_held_back():
    gate = StopGate(["END"])
    assert [gate.feed(piece) for piece in ("the E", "N", "d E", "ND")] == ["the ", "", "ENd ", ""]
    assert gate.stopped
