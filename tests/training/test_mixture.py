"""Mixtures: shares of tokens as the weights say, the seed's order, and exactly on from any place."""

import json
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.errors import RequestError
from longfocus.training.documents import ListedDocuments, TrainingDocument
from longfocus.training.mixture import Mixture
from longfocus.training.sources import Source, Taken


def source_of(name, lengths, epochs=None, shortest=1, seed=0):
    documents = ListedDocuments(TrainingDocument("x" * length, f"{name}{n}") for n, length in enumerate(lengths))
    return Source(name, documents, lambda text: [1] * len(text), seed=seed, epochs=epochs, shortest=shortest)


def mixture_of(seed=0, epochs=None, weights=None):
    sources = [
        source_of("books", [900, 1100, 1300], epochs),
        source_of("pages", [5, 10, 15, 30], epochs),
        source_of("code", range(50, 90), epochs),
    ]
    return Mixture(sources, weights or {"books": 2, "pages": 1, "code": 1}, seed=seed)


def ids(documents):
    return [document.id for document in documents]


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_of_tokens_are_the_weights(seed):
    mixture = mixture_of(seed)
    given_out = list(islice(mixture, 6_000))
    tokens = {name: taken.tokens for name, taken in mixture.taken().items()}
    for name, share in (("books", 0.5), ("pages", 0.25), ("code", 0.25)):
        assert tokens[name] / sum(tokens.values()) == pytest.approx(share, abs=0.05)
        assert tokens[name] == sum(len(document.tokens) for document in given_out if document.source == name)
    assert mixture.taken()["pages"].documents > 20 * mixture.taken()["books"].documents


def test_only_proportions_of_weights_matter():
    one = mixture_of(weights={"books": 2, "pages": 1, "code": 1})
    other = mixture_of(weights={"code": 0.25, "books": 0.5, "pages": 0.25})
    assert ids(islice(one, 300)) == ids(islice(other, 300))


def test_the_order_is_the_seeds():
    found = [ids(islice(mixture_of(seed), 200)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_sources_do_not_just_take_turns():
    """Or one row of a batch would see one source only."""
    sources = [source_of("a", [10]), source_of("b", [10])]
    names = [document.source for document in islice(Mixture(sources, {"a": 1, "b": 1}, seed=0), 200)]
    pairs = [names[place] == names[place + 1] for place in range(199)]
    assert 60 < sum(pairs) < 140


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 2),
    st.integers(0, 2),
)
def test_going_on_from_every_place_loses_and_repeats_nothing(parts, epochs, seed):
    def made():
        sources = [source_of(f"s{n}", lengths, epochs) for n, lengths in enumerate(parts)]
        return Mixture(sources, {f"s{n}": n + 1 for n in range(len(parts))}, seed=seed)

    whole = ids(made())
    assert sorted(whole) == sorted([f"s{n}{i}" for n, part in enumerate(parts) for i in range(len(part))] * epochs)
    first = made()
    for before in range(len(whole) + 1):
        second = made()
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.taken() == first.taken()
        assert ids(second) == whole[before:]
        next(first, None)


def test_the_others_go_on_when_a_source_has_ended():
    sources = [source_of("a", [5] * 3, epochs=1), source_of("b", [5] * 40, epochs=1)]
    mixture = Mixture(sources, {"a": 1, "b": 1}, seed=0)
    found = [document.source for document in mixture]
    assert (found.count("a"), found.count("b")) == (3, 40)
    assert set(found[-20:]) == {"b"}
    assert next(mixture, None) is None


def test_what_is_passed_over_is_counted_for_its_source():
    sources = [source_of("a", [1, 5, 9], epochs=1, shortest=5), source_of("b", [1], epochs=1)]
    mixture = Mixture(sources, {"a": 1, "b": 1}, seed=0)
    list(mixture)
    assert mixture.taken() == {"a": Taken(2, 14, 1), "b": Taken(1, 1, 0)}


def test_documents_come_again_from_their_source():
    mixture = mixture_of()
    for document in islice(mixture, 10):
        assert mixture.again(document.source, document.index).id == document.id
    with pytest.raises(RequestError, match="'other' is wanted; the sources are books, pages, code"):
        mixture.again("other", 0)


@pytest.mark.parametrize(
    ("names", "weights", "seed", "message"),
    [
        ([], {}, 0, "these are none"),
        (["a", "a"], {"a": 1}, 0, "different names; these are a, a"),
        (["a", "b"], {"a": 1}, 0, "weights for a and sources a, b"),
        (["a"], {"a": 0}, 0, "weight of 'a' is 0"),
        (["a"], {"a": float("nan")}, 0, "weight of 'a' is nan"),
        (["a"], {"a": 1}, -1, "seed of the mixture is -1"),
    ],
)
def test_mixtures_that_make_no_sense(names, weights, seed, message):
    with pytest.raises(RequestError, match=message):
        Mixture([source_of(name, [1]) for name in names], weights, seed=seed)


def test_a_state_of_another_mixture_is_refused():
    state = mixture_of().state_dict()
    with pytest.raises(RequestError, match="seed was 0 and is 1"):
        mixture_of(seed=1).load_state_dict(state)
    with pytest.raises(RequestError, match=r"weights was .* and is "):
        mixture_of(weights={"books": 1, "pages": 1, "code": 1}).load_state_dict(state)
