"""Read, then ask: what training computes is what inference computes, and every row sees every row."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from longfocus.memory.late import LateState, read_window, whole_state
from longfocus.memory.recent import RecentMemory
from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.model.config import LongLlamaConfig
from longfocus.model.growing import GrowingTensor
from longfocus.model.memory import DenseMemory
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training.examples import IGNORED
from longfocus.training.recall import UnseenMemory, banked, read_rows, recall, with_all_rows


def model_of(layers: int = 5, mem_layers: tuple[int, ...] = (1, 2)) -> LongLlamaForCausalLM:
    torch.manual_seed(0)
    config = LongLlamaConfig(
        vocab_size=61,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        mem_layers=list(mem_layers),
        mem_dtype="float32",
        window_length=32,
        window_overlap=14,
        sink_tokens=2,
        last_context_length=16,
        initializer_range=0.2,
    )
    return LongLlamaForCausalLM(config).eval()


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def inferred(model: LongLlamaForCausalLM, document: torch.Tensor) -> LongLlamaCache:
    """The state in which a Book of this one document is asked."""
    empty = torch.empty((1, 2, 0, 8))
    memories = {layer: RecentMemory.of(empty, empty.clone(), 0) for layer in (1, 2)}
    state = LateState.start(model.config, memories)
    for piece in document[None].split(model.config.stride, dim=1):
        state = read_window(model.model, piece, state)
    whole = whole_state(model.model, state)
    entries = {layer: whole.layers[layer].memory.entries() for layer in (1, 2)}
    layers = list(whole.layers)

    for layer, (keys, values, _) in entries.items():
        layers[layer] = replace(layers[layer], memory=DenseMemory.of(keys, values))
    return LongLlamaCache(layers, whole.positions)


def labels_of(asked: torch.Tensor, padded: int = 0) -> torch.Tensor:
    labels = asked.clone()
    labels[:, :4] = -100
    if padded:
        labels[0, -padded:] = -100
    return labels


@pytest.mark.parametrize("tokens", [10, 16, 40, 77])
def test_one_row_is_what_inference_makes_of_it(tokens):
    """With one upper layer: with more, training stops running them earlier than reading does."""
    model, document, asked = model_of(4), some(tokens), some(1, 12, seed=1)
    with torch.no_grad():
        found = recall(model, document[None], asked, labels_of(asked))
        logits = model(asked, past_key_values=inferred(model, document), last_context_length=16).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[3:-1], asked[0, 4:], reduction="none")
    assert_close(found.losses, expected, rtol=0, atol=1e-5)
    assert torch.equal(found.hits, logits[3:-1].argmax(-1) == asked[0, 4:])


def test_upper_layers_that_stop_early_make_little_difference():
    model, document = model_of(6), some(200)
    with torch.no_grad():
        early, exact = read_rows(model.model, document[None])[0], inferred(model, document)
    assert early.window == exact.window
    for layer in range(4):
        assert_close(early.layers[layer].keys.tensor, exact.layers[layer].keys.tensor)
    last = [state.layers[5].keys.tensor for state in (early, exact)]
    assert 0 < float((last[0] - last[1]).norm() / last[1].norm()) < 0.1


def test_every_row_sees_every_row():
    model, documents, asked = model_of(), some(3, 50), some(3, 12, seed=1)
    rows = (labels_of(asked)[:, 1:] != IGNORED).nonzero()[:, 0]
    with torch.no_grad():
        before = recall(model, documents, asked, labels_of(asked))
        for changed in range(3):
            others = documents.clone()
            others[changed, :20] = some(20, seed=5)  # in memory by the end
            after = recall(model, others, asked, labels_of(asked))
            for row in range(3):
                assert not torch.equal(before.losses[rows == row], after.losses[rows == row])
        memory = with_all_rows(before.state).layers[1].memory
    assert len(memory) == 3 * len(before.state.layers[1].memory.entries().keys[0, 0])
    assert memory.rows == 1


def test_reading_sees_no_memory():
    """Each window depends on its own past only: a change further back than windows reach leaves it as it was."""
    model, document = model_of(4), some(120)
    other = document.clone()
    other[10:20] = some(10, seed=7)
    with torch.no_grad():
        states = [read_rows(model.model, ids[None])[0] for ids in (document, other)]
    keys = [state.layers[2].memory.entries().keys for state in states]
    assert not torch.equal(keys[0][:, :, 5:20], keys[1][:, :, 5:20])
    assert torch.equal(keys[0][:, :, -20:], keys[1][:, :, -20:])


def test_gradients_reach_positives_and_negatives():
    model, documents, asked = model_of(), some(3, 50), some(3, 12, seed=1)
    state, _ = read_rows(model.model, documents)
    for layer in (1, 2):
        for pair in state.layers[layer].memory.pieces:
            for tensor in pair:
                tensor.retain_grad()
    places = torch.arange(50, 62).expand(3, -1)
    output = model.model.run_window(model.model.embed_tokens(asked), places, with_all_rows(state))[0]
    output[0].logsumexp(-1).sum().backward()
    for layer in (1, 2):
        for pair in state.layers[layer].memory.pieces:
            for tensor in pair:
                assert bool((tensor.grad.abs().sum(dim=(1, 2, 3)) > 0).all())  # of every row
    assert model.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


def test_padding_of_shorter_answers_changes_nothing():
    model, documents, asked = model_of(), some(2, 50), some(2, 12, seed=1)
    padded = asked.clone()
    padded[0, -5:] = 0
    with torch.no_grad():
        one, other = (recall(model, documents, ids, labels_of(asked, padded=5)) for ids in (asked, padded))
    assert_close(one.losses, other.losses)
    assert len(one.losses) == 8 + 3


def test_a_bank_holds_the_newest_entries_without_gradients():
    model, documents, asked = model_of(), some(2, 50), some(2, 12, seed=1)
    first = recall(model, documents, asked, labels_of(asked))
    held = len(with_all_rows(first.state).layers[1].memory)
    bank = banked(first.state, None, 1000)
    assert bank[1][0].shape[2] == held
    assert not bank[1][0].requires_grad
    second = recall(model, some(2, 50, seed=2), asked, labels_of(asked), bank)
    longer = banked(second.state, bank, held + 7)
    assert torch.equal(longer[1][0][:, :, held:], bank[1][0][:, :, :7])
    assert len(with_all_rows(second.state, bank).layers[2].memory) == 2 * held
    alone = recall(model, some(2, 50, seed=2), asked, labels_of(asked))
    assert not torch.equal(second.losses, alone.losses)


def test_a_bank_from_a_file_is_moved_to_where_the_model_computes():
    """As after a checkpoint, and from a Book: both are read into the machine's memory, whatever computes."""
    there = torch.zeros(2, 1, 3, 4, device="meta")
    window = GrowingTensor.of(there, 2)
    layer = LayerState(window, window, window, UnseenMemory().append(there, there, None))
    state = LongLlamaCache([layer], torch.zeros(2))
    bank = {0: (torch.ones(1, 1, 5, 4), torch.ones(1, 1, 5, 4))}
    seen = with_all_rows(state, bank).layers[0].memory.entries()
    for held, count in ((seen.keys, 11), (seen.values, 11), *((part, 8) for part in banked(state, bank, 8)[0])):
        assert held.device.type == "meta"
        assert held.shape == (1, 1, count, 4)


def test_questions_longer_than_the_window_are_refused():
    model, asked = model_of(), some(1, 17)
    with pytest.raises(ValueError, match="have 17 tokens, the window has room for 16"):
        recall(model, some(1, 50), asked, asked)


def test_what_is_read_has_no_padding():
    with pytest.raises(ValueError, match="no padding"):
        UnseenMemory().append(torch.empty(1, 1, 2, 4), torch.empty(1, 1, 2, 4), torch.ones(1, 2, dtype=torch.bool))
