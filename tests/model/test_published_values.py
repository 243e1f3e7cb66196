"""Numbers computed with LongLLaMA's own code, on weights that a formula gives (the recipe is in conftest.py)."""

import pytest
import torch
from torch.testing import assert_close

# tokens, configuration, last_context_length: logits 0-3 at the last place, its argmax, norm of all logits
VALUES = {
    "one window": (16, {}, 16, [1.21859, -0.79884, 0.54638, 0.69976], 54, 36.5179),
    "two windows": (16, {}, 8, [0.40793, 1.98886, 1.23412, -1.30297], 28, 35.8917),
    "50, 8": (50, {}, 8, [0.63930, -1.34428, 0.88778, -1.16201], 60, 63.3772),
    "50, 16": (50, {}, 16, [-0.63993, -1.02070, 1.49892, -0.35830], 33, 62.4644),
    "48, 16": (48, {}, 16, [1.43788, 0.31884, 1.01196, -0.93137], 12, 61.3418),
    "no memory": (50, {"mem_layers": []}, 8, [-0.16708, -1.65025, 0.34657, -1.34101], 11, 63.3664),
    "no positions": (50, {"mem_positionals": False}, 8, [0.54585, -0.86560, 0.73026, -1.38793], 60, 62.6893),
    "bfloat16 memory": (50, {"mem_dtype": "bfloat16"}, 8, [0.64110, -1.34306, 0.88710, -1.16093], 60, 63.3785),
    "theta": (50, {"rope_theta": 1e6}, 8, [1.05694, -1.31687, 0.87676, -0.96821], 60, 62.4432),
    "30, 8": (30, {}, 8, [2.01508, -0.44548, 0.90122, -0.78980], 33, 48.8488),
}
GREEDY = "58 44 24 34 12 25 34 33 60 36 24 26 22 32 21 21 24 8 0 0 18 31 10 58 31 37 30 33 43 58"
BEAMS = "58 44 24 47 44 50 48 32 26 17"


def agree(logits, first, best, norm):
    assert_close(logits[0, -1, :4], torch.tensor(first), rtol=0, atol=2e-5)
    assert int(logits[0, -1].argmax()) == best
    assert_close(logits.norm(), torch.tensor(norm), rtol=0, atol=2e-4)


@pytest.fixture(params=[True, False], ids=["grad", "no_grad"], autouse=True)
def gradients(request):
    with torch.set_grad_enabled(request.param):
        yield


def test_recipe(published_weights, published_ids):
    embedding = published_weights["model.embed_tokens.weight"]
    assert_close(embedding[0, :3], torch.tensor([0.3064831, 0.0850416, -0.2901767]), rtol=0, atol=1e-7)
    assert published_ids(0, 8).tolist() == [[8, 18, 42, 22, 16, 24, 46, 24]]


@pytest.mark.parametrize("case", VALUES)
def test_logits(case, published, published_ids):
    length, fields, last, *expected = VALUES[case]
    agree(published(**fields)(published_ids(0, length), last_context_length=last).logits, *expected)


@pytest.mark.parametrize("padding", [16, 5])
def test_left_padding(padding, published, published_ids):
    """A multiple of the window changes nothing in LongLLaMA either; 5 shifts its borders, and must not shift ours."""
    ids = torch.cat((torch.zeros((1, padding), dtype=torch.long), published_ids(0, 30)), dim=1)
    logits = published()(ids, attention_mask=(torch.arange(padding + 30) >= padding).long()[None]).logits
    agree(logits[:, padding:], *VALUES["30, 8"][3:])


def test_second_call(published, published_ids):
    model = published()
    state = model(published_ids(0, 20)).past_key_values
    logits = model(published_ids(20, 50), past_key_values=state).logits
    agree(logits, [-0.65175, -1.55843, 1.23620, -0.15118], 44, 49.0837)


def test_memory_only_state(published, published_ids):
    model = published(last_context_length=16)
    state = model(published_ids(0, 32), use_cache=False).past_key_values
    agree(
        model(published_ids(32, 40), past_key_values=state).logits,
        [0.07775, 0.60359, 0.69562, -1.69281],
        33,
        24.6724,
    )


def test_loss_and_memory(published, published_ids):
    ids = published_ids(0, 50)
    output = published()(ids, labels=ids)
    assert_close(output.loss, torch.tensor(4.66937), rtol=0, atol=2e-5)
    keys = output.past_key_values.layers[1].memory.entries().keys
    assert keys.shape == (1, 4, 42, 8)
    assert_close(keys[0, 0, 0, :3], torch.tensor([0.680781, 2.086296, -0.996838]), rtol=0, atol=2e-6)
    assert_close(keys.sum(), torch.tensor(136.0479), rtol=0, atol=1e-3)


def test_greedy(published, published_ids):
    made = published().generate(published_ids(0, 20), do_sample=False, max_new_tokens=30)
    assert " ".join(map(str, made[0, 20:].tolist())) == GREEDY


def test_beams(published, published_ids):
    made = published().generate(published_ids(0, 20), do_sample=False, num_beams=3, max_new_tokens=10)
    assert " ".join(map(str, made[0, 20:].tolist())) == BEAMS
