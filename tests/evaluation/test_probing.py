"""Probing: layers that find are told from those that do not, and what is told can be relied on."""

import dataclasses
import random
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.asking.passages import find_passages
from longfocus.asking.session import Session
from longfocus.errors import RequestError
from longfocus.evaluation.probing import Extent, Probed, ProbeStep, probe
from longfocus.evaluation.probing_texts import LINES, NEEDLES, PASSKEYS, planted, record, story
from longfocus.evaluation.sightings import Sighting, choose_layers, sighting, worth
from longfocus.evaluation.tasks.needle import FACTS
from longfocus.loading.cache import CACHE_VARIABLE
from longfocus.loading.load import load
from longfocus.loading.profiles import profile_of, write_profile
from longfocus.memory.book import StoredBook
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of their own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def seen(measure: str, ranks: dict[int, int], layers: int = 6, passages: int = 30, seed: int = 0) -> Sighting:
    """A question of which these layers put the wanted passage at these ranks, and the others look anywhere."""
    shares = torch.rand(layers, passages, generator=torch.Generator().manual_seed(seed))
    wanted = torch.zeros(passages, dtype=torch.bool)
    wanted[7] = True
    for layer in range(layers):
        shares[layer] /= shares[layer].sum()
        rank = ranks.get(layer, passages)
        shares[layer, 7] = torch.sort(shares[layer], descending=True).values[rank - 1] + 1e-6 if rank < passages else 0
    return Sighting(measure, shares, wanted)


def sure(measure: str, layers: set[int], seed: int) -> Sighting:
    """A question whose passage has nearly all the attention of these layers."""
    one = seen(measure, {}, seed=seed)
    for layer in layers:
        one.shares[layer] *= 0.05
        one.shares[layer, 7] = 0.95
    return one


def test_the_fewest_layers_that_find_everything_are_chosen():
    asked = [sure(LINES, {1, 4}, seed) for seed in range(8)] + [sure(NEEDLES, {2}, seed) for seed in range(8, 16)]
    chosen = choose_layers(asked, range(6), 4)
    assert 2 in chosen
    assert len(chosen) == 2
    assert set(chosen) & {1, 4}
    assert worth(asked, chosen, 4) > 0.9
    assert worth(asked, [1, 4], 4) < 0.6
    assert choose_layers([sure(LINES, {5}, seed) for seed in range(4)], range(6), 4) == (5,)


def test_nothing_is_chosen_where_nothing_is_found():
    blind = [dataclasses.replace(seen(LINES, {}), shares=torch.zeros(6, 30)) for _ in range(4)]
    assert choose_layers(blind, range(6), 4) == ()
    assert worth(blind, [0, 1], 4) == worth(blind, [], 4) == 0.0
    lost = Sighting(LINES, torch.ones(6, 30), torch.zeros(30, dtype=torch.bool))
    assert worth([lost], [0], 4) == 0.0


@settings(deadline=None, max_examples=25)
@given(st.lists(st.dictionaries(st.integers(0, 5), st.integers(1, 29)), min_size=1, max_size=6))
def test_what_is_chosen_is_worth_as_much_as_any_layer_alone(questions):
    asked = [seen(LINES, ranks, seed=number) for number, ranks in enumerate(questions)]
    chosen = choose_layers(asked, range(6), 4)
    assert list(chosen) == sorted(set(chosen))
    best = max(worth(asked, [layer], 4) for layer in range(6))
    assert worth(asked, chosen, 4) >= best - 0.1 * len(chosen) or best < 0.02
    assert 0.0 <= worth(asked, chosen, 4) <= 1.0


def test_texts_have_what_their_questions_ask_for_once():
    told = story(700, words)
    assert 500 < words(told) <= 700
    made = planted(told, 6, 0, 0)
    assert made == dataclasses.replace(planted(told, 6, 0, 0), questions=made.questions)
    assert made.text != planted(told, 6, 1, 0).text
    assert [one.measure for one in made.questions] == [NEEDLES] * 6 + [PASSKEYS]
    sentences = made.text.split(". ")
    for one in made.questions:
        places = [place for place, sentence in enumerate(sentences) if one.wanted(sentence)]
        assert places and places[-1] - places[0] <= 2  # a pass key is said twice
    assert sum(any(fact.fact.format("") in sentence for fact in FACTS) for sentence in sentences) == 0
    lines = record(600, 5, 0, 0, words)
    rows = lines.text.splitlines()
    assert [sum(bool(one.wanted(row)) for row in rows) for one in lines.questions] == [1] * 5


def test_shares_of_layers_add_up_to_what_the_session_finds(tiny_folder, tmp_path):
    """What a set of layers finds by sums of shares is what a session with all of them finds."""
    tiny_model = load(tiny_folder, window=256, mem_layers=[1, 2], dtype="float32")
    made = planted(story(600, words), 4, 0, 0)
    for _ in read_steps(Document("t", made.text, (0, len(made.text))), tiny_model, tmp_path / "b"):
        pass
    session = Session(StoredBook.open(tmp_path / "b"), tiny_model)
    for one in made.questions:
        found = sighting(session, one)
        assert found.shares.shape[0] == 4
        assert not found.shares[[0, 3]].any()
        attention = session.looked_up(one.question, 1).attention
        assert attention is not None
        passages = find_passages(session.book, attention.attention, 10**6, join=False)
        together = [bool(one.wanted(passage.text)) for passage in passages]
        assert abs(found.rank([1, 2]) - 1 - together.index(True)) <= 1  # shares are rounded


@pytest.fixture(scope="module")
def probed(tiny_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        loading = partial(load, tiny_folder, adapter=None, dtype="float32")
        return list(probe(loading, Extent(0.1, lines=3, needles=2, answers=1, window=512)))


@pytest.mark.slow
def test_a_checkpoint_is_probed_within_its_budget_and_what_was_found_is_used(probed, tiny_folder):
    *steps, last = probed
    assert all(isinstance(step, ProbeStep) for step in steps)
    assert [step.share for step in steps] == sorted(step.share for step in steps)
    assert sum(step.told.startswith("round") for step in steps) == 2  # no more than are needed
    assert isinstance(last, Probed)
    assert last.usual == any("the usual ones" in step.told for step in steps)  # random weights find by chance only
    profile = last.profile
    assert profile.window == 512
    assert profile.top_k in (4, 16, 64)
    assert profile.overlap + profile.sinks in (128, 256, 384)
    assert [(one.measure, one.asked) for one in profile.found] == [
        ("lines", 3), ("needles", 2), ("pass keys", 1), ("lines answered", 1),
    ]  # fmt: skip
    assert last.entry_bytes == 2 * 2 * 16 * 2 * len(profile.memory_layers)  # 2 heads of 16, in bfloat16
    assert 1 < last.perplexity < 1e4
    write_profile(last.fingerprint, profile)
    loaded = load(tiny_folder)
    assert loaded.fingerprint == last.fingerprint
    assert profile_of(last.fingerprint, loaded.model.config) == profile
    assert tuple(loaded.model.config.mem_layers) == profile.memory_layers


def test_a_model_that_was_trained_to_use_memory_is_not_probed(tiny_model):
    from longfocus.loading.defaults import TRAINED

    trained = dataclasses.replace(tiny_model, habits=TRAINED)
    with pytest.raises(RequestError, match="trained to use memory"):
        next(probe(lambda **_: trained))


def test_the_same_texts_everywhere():
    """Drawn by Python's generator from a seed, so that results on two machines are of the same questions."""
    text = planted(story(500, words), 3, 5, 7).text
    random.seed(1)
    assert planted(story(500, words), 3, 5, 7).text == text
