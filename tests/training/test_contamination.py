"""Contamination: every shared run of words is found, with its share and its set; chance and quotations are not."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.errors import RequestError
from longfocus.training.contamination import (
    Checked,
    EvaluationTexts,
    check_contamination,
    normalised_words,
)
from longfocus.training.documents import LeftOut, ListedDocuments, TrainingDocument


def prose(words, seed, size=5000):
    chance = random.Random(seed)
    return " ".join(f"w{chance.randrange(size)}" for _ in range(words))


def documents_of(*texts):
    return ListedDocuments(TrainingDocument(text, f"d{number}") for number, text in enumerate(texts))


def check(texts, evaluations, **settings):
    return check_contamination(documents_of(*texts), evaluations, **settings)


def plain_overlap(document, texts, words, shortest):
    """Shared n-grams, share of the document's words, greatest share of a text, number of texts; of word tuples."""
    said = re.findall(r"[a-z]+", document)
    grams, sizes = {}, []
    for text in texts:
        other = text.split()
        if len(other) >= shortest:
            length = min(words, len(other))
            own = {tuple(other[place : place + length]) for place in range(len(other) - length + 1)}
            for gram in own:
                grams.setdefault(gram, set()).add(len(sizes))
            sizes.append(len(own))
    found, covered, counts = set(), set(), [0] * len(sizes)
    for gram in grams:
        for place in range(len(said) - len(gram) + 1):
            if tuple(said[place : place + len(gram)]) == gram:
                found.add(gram)
                covered |= set(range(place, place + len(gram)))
    for gram in found:
        for text in grams[gram]:
            counts[text] += 1
    shares = [count / size for count, size in zip(counts, sizes, strict=True)]
    return len(found), len(covered) / max(len(said), 1), max(shares, default=0), sum(count > 0 for count in counts)


few_words = st.lists(st.sampled_from(["a", "b", "c"]), max_size=30).map(" ".join)


@settings(deadline=None)
@given(few_words, st.lists(few_words, max_size=4), st.integers(1, 5), st.integers(1, 5))
def test_overlaps_are_those_of_a_plain_comparison(document, texts, words, shortest):
    report = check([document], [EvaluationTexts("set", texts, shortest=shortest)], words=words)
    expected = plain_overlap(document, texts, words, min(shortest, words))
    if not expected[0]:
        assert report.overlaps == ()
        return
    (overlap,) = report.overlaps
    found = (overlap.shared, overlap.document_share, overlap.text_share, overlap.texts)
    assert found == pytest.approx(expected)
    assert f" {overlap.sample} " in f" {document} "


def test_each_document_is_told_with_its_sets():
    book, question = prose(400, 1), "who sank the harbour ferry in winter"
    sets = [EvaluationTexts("books", [prose(300, 2), book]), EvaluationTexts("questions", [question], shortest=5)]
    texts = [prose(500, 3), f"{prose(200, 4)} {book} {prose(200, 5)}", f"Q: {question.title()}? {prose(100, 6)}"]
    report = check(texts, sets)
    assert report.documents == 3
    assert report.evaluations == {"books": Checked(2, 0, 288 + 388), "questions": Checked(1, 0, 1)}
    assert [(overlap.number, overlap.document, overlap.evaluation) for overlap in report.contaminated] == [
        (1, "d1", "books"),
        (2, "d2", "questions"),
    ]
    assert report.overlaps == report.contaminated
    first, second = report.overlaps
    assert (first.shared, first.text_share, first.texts, first.document_share) == (388, 1, 1, 0.5)
    assert first.sample == " ".join(normalised_words(book)[:13])
    assert (second.shared, second.text_share, second.sample) == (1, 1, question)
    assert report.numbers() == {1, 2}
    message = '2 of 3 training documents hold evaluation data, such as d1 of books .388 runs, "w'
    with pytest.raises(RequestError, match=message) as caught:
        report.require_clean()
    assert "\n" not in str(caught.value)
    rest = LeftOut(documents_of(*texts), report.numbers())
    check_contamination(rest, sets).require_clean()


def test_a_part_of_a_book_is_found_in_a_much_longer_document():
    book = prose(20_000, 1)
    chapter = " ".join(book.split()[5_000:5_200])
    report = check([f"{prose(50_000, 2)} {chapter}"], [EvaluationTexts("books", [book])])
    assert len(report.contaminated) == 1
    assert report.overlaps[0].shared == 188
    assert report.overlaps[0].text_share < 0.02


def test_a_quotation_is_told_and_tolerated():
    said = prose(32, 1)  # 20 runs of 13 words
    texts, sets = [f"{prose(500, 2)} {said}"], [EvaluationTexts("books", [f"{prose(500, 3)} {said} {prose(99, 4)}"])]
    report = check(texts, sets)
    assert [overlap.shared for overlap in report.overlaps] == [20]
    report.require_clean()
    assert len(check(texts, sets, tolerated=19).contaminated) == 1
    assert len(check(texts, sets, tolerated_share=0.01).contaminated) == 1


def test_short_texts_are_compared_whole_or_counted_as_too_short():
    sets = [EvaluationTexts("answers", ["the early hours", "in the early hours of the very next morning"])]
    report = check(["It was in the early hours of the morning.", "In the early hours of the very next morning!"], sets)
    assert report.evaluations["answers"] == Checked(1, 1, 1)
    assert [overlap.document for overlap in report.contaminated] == ["d1"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Emily's stepsons", "emily s stepsons"),
        ("He didn't -- he Couldn't!", "he did n't he could n't"),
        ("Café “naïve”, ﬁne", "CAFE naive fine"),
        ("snake_case(x)\n\treturn", "snake case x return"),
        ("Straße 12,5", "STRASSE 12 5"),
    ],
)
def test_case_accents_and_punctuation_are_no_difference(one, other):
    assert normalised_words(one) == normalised_words(other)


def test_words_stay_different_words():
    assert normalised_words("a bc") != normalised_words("ab c")
    assert normalised_words("не да 日本") == ["не", "да", "日本"]
    assert normalised_words(" .,-_ ") == []


@pytest.mark.parametrize(
    ("name", "found"), [("x42", True), ("folder/x42.txt.gz", True), ("x420", False), ("x42/other.txt", False)]
)
def test_documents_of_the_same_name_are_found_without_a_shared_word(name, found):
    sets = [EvaluationTexts("books", [prose(50, 1)], frozenset({"x42"}))]
    report = check_contamination([TrainingDocument(prose(50, 2), name)], sets)
    assert [overlap.same_name for overlap in report.contaminated] == [True] * found
    if found:
        with pytest.raises(RequestError, match=r"of books \(the same name\)"):
            report.require_clean()


def test_documents_come_one_at_a_time():
    """A stream is never held: each document is gone before the next is asked for."""
    import weakref

    class Text(str):
        __slots__ = ("__weakref__",)

    alive = []

    def stream():
        for seed in range(3):
            assert sum(reference() is not None for reference in alive) <= 1
            text = Text(prose(30, seed))
            alive.append(weakref.ref(text))
            yield TrainingDocument(text, str(seed))

    assert check_contamination(stream(), [EvaluationTexts("set", [prose(30, 9)])]).documents == 3


def test_nothing_to_compare():
    assert check([], []).documents == 0
    check(["", "a b"], [EvaluationTexts("none", []), EvaluationTexts("short", ["a"])]).require_clean()


@pytest.mark.parametrize("change", [{"words": 0}, {"tolerated": -1}, {"tolerated_share": 0}, {"tolerated_share": 1.1}])
def test_numbers_that_make_no_sense(change):
    with pytest.raises(RequestError, match="wanted words from 1"):
        check([], [], **change)
    with pytest.raises(RequestError, match="Two evaluation sets are called 'a'"):
        check([], [EvaluationTexts("a", []), EvaluationTexts("a", [])])
