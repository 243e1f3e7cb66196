"""Measures of answers: pairs known from the papers and by hand, and properties that hold for all texts."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.evaluation.answers import exact_match, f1, in_ascii, normalised, rouge_l, zeroscrolls_f1

SOME = st.lists(st.sampled_from(["river", "lamp", "stone", "road"]), max_size=7).map(" ".join)
ANY = st.text(max_size=30)
MEASURES = (exact_match, f1, zeroscrolls_f1, rouge_l)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Denver Broncos!", "denver broncos"),
        ("an apple, a pear; the plum", "apple pear plum"),
        ("Theatre at another anthem", "theatre at another anthem"),
        ("It's U.S.-made", "its usmade"),
        ("Café “Ritz”", "café “ritz”"),
        ("a\tthe\n", ""),
    ],
)
def test_normalised_as_squad_does(text, wanted):
    assert normalised(text) == wanted


@pytest.mark.parametrize(
    ("answer", "references", "wanted"),
    [
        ("The cat sat on the mat.", ["a cat sat"], 2 / 3),  # 2 of 4 words, and both of 2
        ("no no no", ["no"], 1 / 2),  # a word counts as often as both have it
        ("no no no", ["No, no!"], 4 / 5),
        ("Pedro Marquez", ["the captain", "Marquez"], 2 / 3),
        ("an answer", ["something else"], 0.0),
        ("", ["something"], 0.0),
        ("the", ["a"], 0.0),  # as in SQuAD 1.1; version 2 gives 1 here
    ],
)
def test_f1(answer, references, wanted):
    assert f1(answer, references) == pytest.approx(wanted)
    assert zeroscrolls_f1(answer, references) == pytest.approx(wanted)


def test_exact_match():
    assert exact_match(" the Captain.", ["somebody", "A captain"]) == 1.0
    assert exact_match("the captains", ["captain"]) == 0.0


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("police kill the gunman", 3 / 4), ("the gunman kill police", 2 / 4), ("the gunman police killed", 2 / 4)],
)
def test_rouge_l_of_the_papers_sentences(answer, wanted):
    """Lin, 2004, section 3.1: sentences for which both texts have four words."""
    assert rouge_l(answer, ["police killed the gunman"]) == wanted


def test_rouge_l_of_texts_of_unlike_length():
    """Five words of eight and nine stand in the same order, articles and case as they come."""
    answer, reference = "The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog"
    assert rouge_l(answer, [reference]) == pytest.approx(2 * (5 / 8) * (5 / 9) / (5 / 8 + 5 / 9))


@settings(deadline=None)
@given(SOME, SOME)
def test_rouge_l_is_of_the_longest_common_subsequence(first, second):
    ours, theirs = first.split(), second.split()

    @cache
    def longest(i: int, j: int) -> int:
        if i == len(ours) or j == len(theirs):
            return 0
        here = 1 + longest(i + 1, j + 1) if ours[i] == theirs[j] else 0
        return max(here, longest(i + 1, j), longest(i, j + 1))

    wanted = 2 * longest(0, 0) / max(len(ours) + len(theirs), 1)
    assert rouge_l(first, [second]) == pytest.approx(wanted)
    assert rouge_l(first, [second]) <= f1(first, [second]) + 1e-12  # order can only take away


@settings(deadline=None)
@given(ANY, st.lists(ANY, min_size=1, max_size=3))
def test_the_best_reference_counts(answer, references):
    for measure in MEASURES:
        found = measure(answer, references)
        assert found == max(measure(answer, [each]) for each in references)
        assert 0 <= found <= 1
        assert found == pytest.approx(measure(answer, references[::-1]))


@settings(deadline=None)
@given(ANY)
def test_an_answer_that_is_the_reference(text):
    assert exact_match(text, [text]) == 1.0
    assert f1(text, [text]) == float(bool(normalised(text).split()))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("chimène", "chimene"),
        ("señor müller’s “café”", 'senor muller\'s "cafe"'),
        ("straße – œuvre", "strasse - oeuvre"),
    ],
)
def test_in_ascii(text, wanted):
    assert in_ascii(text) == wanted


def test_zeroscrolls_sees_no_accents_and_normalises_first():
    assert f1("Chimene", ["Chimène"]) == 0.0
    assert zeroscrolls_f1("Chimene", ["Chimène"]) == 1.0
    assert zeroscrolls_f1("Jobson's", ["Jobson’s"]) == 0.0  # the one sign is gone before the other becomes it
