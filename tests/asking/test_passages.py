"""Sentences of a text, and from attention to passages."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.asking.passages import _LONGEST, _SHORTEST, find_passages, split_sentences
from longfocus.memory.book import StoredBook

pieces_of_text = st.sampled_from(
    [
        "word",
        "a",
        "Mr.",
        "End.",
        "Ha!",
        "Why?",
        "“So?”",
        "'",
        ")",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\n \t\n",
        "\u00a0",
        "é🦊",
        "x" * 350,
        ". ",
    ]
)
texts = st.lists(pieces_of_text, max_size=60).map("".join) | st.text(max_size=200)


@settings(max_examples=400, deadline=None)
@given(text=texts, data=st.data())
def test_sentences_cover_all_that_is_no_white_space(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    found = split_sentences(text, start, end)
    covered: set[int] = set()
    last = start
    for first, stop in found:
        assert last <= first < stop <= end
        assert not text[first].isspace()
        assert not text[stop - 1].isspace()
        assert stop - first <= _LONGEST + _SHORTEST + 50
        covered.update(range(first, stop))
        last = stop
    assert all(place in covered or text[place].isspace() for place in range(start, end))


def test_where_sentences_end():
    long = "It was a dark and stormy night and the rain fell in torrents on us"
    text = f"“{long}!” {long}? (“{long}.”)\n\n{long}\n\nNo. {long}. Oh."
    found = [text[start:stop] for start, stop in split_sentences(text, 0, len(text))]
    assert found == [f"“{long}!”", f"{long}?", f"(“{long}.”)", long, f"No. {long}.", "Oh."]


LINES = [f"line {word}: REGISTER_CONTENT is <{number}>" for number, word in enumerate(["torpid-kid", "odd-moon"] * 4)]


@pytest.mark.parametrize("around", ["", "It was late.\n\n"])
def test_lines_of_a_list_stand_for_themselves(around):
    text = around + "\n".join(LINES) + "\n\nThere it ended, long after all of the others had gone to their beds."
    found = [text[start:stop] for start, stop in split_sentences(text, 0, len(text))]
    assert found[-1].startswith("There it ended")
    assert found[1 if around else 0 : -1] == LINES


def test_lines_of_data_stand_for_themselves():
    """They are as wide as a page, begin as they like, and end alike."""
    pairs = [
        f'"{number:08x}-{number:04x}-4cc1-b50f": "{7 * number:08x}-{number:04x}-4d5b"' for number in range(99, 107)
    ]
    text = "{" + ",\n ".join(pairs) + "}"
    found = [text[start:stop] for start, stop in split_sentences(text, 0, len(text))]
    assert [line.strip("{},") for line in found] == pairs


def test_lines_that_fit_a_page_do_not():
    words = ["the", "rain", "fell", "on", "a", "roof", "that", "nobody", "mended", "for", "many", "a", "winter"]
    lines, line = [], ""
    for word in words * 8:
        if len(line) + 1 + len(word) > 70:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    text = "\n".join([*lines, line]) + "."
    assert len(split_sentences(text, 0, len(text))) == len(text) // _LONGEST + 1


def test_a_heading_stays_apart_from_its_paragraph():
    assert len(split_sentences("Chapter 1\n\nIt began.", 0, 20)) == 2


def test_a_long_sentence_is_cut_at_spaces():
    text = "word " * 500
    found = split_sentences(text, 0, len(text))
    assert len(found) > 3
    assert max(stop - start for start, stop in found) <= _LONGEST
    assert {text[start:stop].split()[0] for start, stop in found} == {"word"}
    assert {text[start:stop].split()[-1] for start, stop in found} == {"word"}


@pytest.fixture(scope="module")
def book(tiny_book_folder: Path) -> StoredBook:
    return StoredBook.open(tiny_book_folder)


def is_sound(book, citations, most):
    assert len(citations) <= most
    for citation in citations:
        assert citation.text == book.text[citation.start : citation.end] != ""
        assert 0 < citation.score <= 1
    assert sum(citation.score for citation in citations) <= 1 + 1e-5
    scores = [citation.score for citation in citations]
    assert scores == sorted(scores, reverse=True)
    ranges = sorted((citation.start, citation.end) for citation in citations)
    assert all(one[1] <= other[0] for one, other in pairwise(ranges))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(0, 8), sparse=st.floats(0, 1))
def test_passages_are_quoted_and_scored(book, seed, most, sparse):
    chance = torch.Generator().manual_seed(seed)
    attention = torch.rand(len(book.ids), generator=chance)
    attention = attention * (torch.rand(len(book.ids), generator=chance) > sparse)
    is_sound(book, find_passages(book, attention, most), most)


def test_all_passages_together_hold_all_attention(book):
    attention = torch.rand(len(book.ids), generator=torch.Generator().manual_seed(1))
    assert sum(citation.score for citation in find_passages(book, attention, 10**6)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("place", [1, 2, 17, 500, 801, -2])
def test_a_token_cites_the_sentence_that_holds_it(book, place):
    attention = torch.zeros(len(book.ids))
    attention[place] = 0.25
    (citation,) = find_passages(book, attention, 3)
    assert citation.score == 1
    assert citation.start < book.ends[place] <= citation.end + 1  # the space behind a sentence is in none
    assert citation.chapter == book.place(citation.start)["chapter"]


def test_shares_are_those_of_the_tokens(book):
    sentences = split_sentences(book.text, 0, len(book.text))
    attention = torch.zeros(len(book.ids))
    inside = [
        ((book.starts >= start) & (book.ends <= end)).nonzero()[0, 0] for start, end in (sentences[3], sentences[9])
    ]
    attention[inside[0]], attention[inside[1]] = 3, 1
    first, second = find_passages(book, attention, 3)
    assert (first.start, first.end, first.score) == (*sentences[3], 0.75)
    assert (second.start, second.end, second.score) == (*sentences[9], 0.25)


def test_neighbours_are_given_as_one(book):
    sentences = split_sentences(book.text, 0, len(book.text))
    attention = torch.zeros(len(book.ids))
    for start, end in sentences[3:5]:
        attention[((book.starts >= start) & (book.ends <= end)).nonzero()[0, 0]] = 1
    (citation,) = find_passages(book, attention, 3)
    assert (citation.start, citation.end, citation.score) == (sentences[3][0], sentences[4][1], 1)


def test_the_opening_is_left_out(book):
    attention = torch.zeros(len(book.ids))
    attention[: book.manifest.opening] = 100
    assert find_passages(book, attention, 3) == ()
    attention[50] = 1
    assert find_passages(book, attention, 3)[0].score == 1


def test_nothing_of_what_was_cut_out_is_cited():
    text = "Alpha beta gamma. " * 40
    spans = ((0, 90), (630, 720))
    starts = torch.tensor([-1, 0, 45, 85, 630, 700])
    cut = SimpleNamespace(
        text=text, starts=starts, ends=starts + 5, manifest=SimpleNamespace(spans=spans), place=lambda position: {}
    )
    citations = find_passages(cut, torch.ones(6), 20)
    assert sum(citation.score for citation in citations) == pytest.approx(1)
    for citation in citations:
        assert any(start <= citation.start < citation.end <= end for start, end in spans)
