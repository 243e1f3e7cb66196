"""Cross-batch attention: the reference's values and gradients, who sees whom, and that it is what inference does."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from longfocus.model.cache import LongLlamaCache
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training.crossbatch import CrossBatch, CrossBatchMemory, CrossDocuments, cross_batch_attention

GOLDEN = Path(__file__).parents[1] / "golden" / "crossbatch"
CASES = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))
TENSORS = load_file(GOLDEN / "cases.safetensors")
SETTINGS = ("cross_batch_range", "cross_batch_stepping", "dataset_packing", "rope_theta")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_outputs_and_gradients_are_the_references(case):
    query, key, value = (
        TENSORS[f"{case['name']}.{name}"].clone().requires_grad_() for name in ("query", "key", "value")
    )
    output = cross_batch_attention(query, key, value, **{name: case[name] for name in SETTINGS})
    assert_close(output, TENSORS[f"{case['name']}.output"], rtol=0, atol=1e-4)
    output.backward(TENSORS[f"{case['name']}.grad_output"])
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        assert_close(tensor.grad, TENSORS[f"{case['name']}.grad_{name}"], rtol=0, atol=1e-4)


def test_shared_key_heads_are_as_if_repeated():
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(4, 10, 6, 16, generator=draw)
    key, value = (torch.randn(4, 10, 2, 16, generator=draw) for _ in range(2))
    how = {"cross_batch_range": 2, "cross_batch_stepping": True, "dataset_packing": 2, "rope_theta": 1e4}
    repeated = cross_batch_attention(query, key.repeat_interleave(3, 2), value.repeat_interleave(3, 2), **how)
    assert_close(cross_batch_attention(query, key, value, **how), repeated)


@pytest.mark.parametrize(
    ("range_", "packing", "batch", "expected"),
    [
        (3, 4, 8, [(0, 0), (1, 1), (2, 1), (3, 0)]),  # LongLLaMA 3B
        (7, 4, 12, [(0, 0), (1, 2), (2, 4), (3, 4)]),
        (2, 2, 4, [(0, 0), (1, 1)]),
    ],
)
def test_positives_and_negatives_of_the_last_pack(range_, packing, batch, expected):
    assert CrossBatch(range_, True, packing).positives_and_negatives(batch)[-packing:] == expected


def test_rows_seen_in_the_first_packs():
    assert CrossBatch(6, True, 4).seen(8) == [0, 1, 2, 3, 0, 3, 6, 6]
    assert CrossBatch(6, False, 4).seen(8) == [0, 1, 2, 3, 4, 5, 6, 6]
    assert CrossBatch(0, True, 4).seen(4) == [0, 0, 0, 0]
    assert CrossBatch(2, True, 1).seen(4) == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("documents", "packing", "expected"),
    [
        (1, 2, [(0, 0), (1, 0)] * 4),  # no negatives
        (4, 2, [(0, 0), (1, 3)] * 4),
        (9, 2, [(0, 0), (1, 3)] * 4),  # there are no more than four
        (2, 4, [(0, 0), (1, 1), (2, 2), (3, 3)] * 2),
        (0, 2, [(0, 0)] * 8),
    ],
)
def test_positives_and_negatives_by_documents(documents, packing, expected):
    assert CrossDocuments(documents, packing).positives_and_negatives(8) == expected


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (CrossBatch, (-1,), "range is -1"),
        (CrossBatch, (1, True, 0), "packing is 0"),
        (CrossDocuments, (-1,), "windows of -1 documents"),
        (CrossDocuments, (1, 0), "packing is 0"),
    ],
)
def test_numbers_that_make_no_sense(kind, given, message):
    with pytest.raises(ValueError, match=message):
        kind(*given)


@pytest.mark.parametrize("seen", [CrossBatch(1, True, 4), CrossDocuments(1, 4)])
def test_a_batch_is_made_of_whole_packs(seen):
    with pytest.raises(ValueError, match="batch of 6 rows cannot be made of packs of 4"):
        seen.positives_and_negatives(6)


def model_of(**changes) -> LongLlamaForCausalLM:
    torch.manual_seed(0)
    fields = {
        "vocab_size": 61,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "mem_layers": [1, 2],
        "mem_dtype": "float32",
        "window_length": 16,
        "last_context_length": 16,
        "initializer_range": 0.2,
    }
    return LongLlamaForCausalLM(LongLlamaConfig(**{**fields, **changes})).eval()


def rows(batch: int, length: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(seed))


def state_of(model: LongLlamaForCausalLM, seen: CrossBatch | CrossDocuments) -> LongLlamaCache:
    memories = {layer: CrossBatchMemory(seen) for layer in model.config.mem_layers}
    return LongLlamaCache.of_memories(memories, model.config.num_hidden_layers)


@pytest.mark.parametrize("seen", [CrossBatch(4, False, 5), CrossDocuments(1, 5)], ids=["batch", "documents"])
@pytest.mark.parametrize("grad", [False, True])
def test_windows_of_one_document_are_what_inference_makes_of_them(seen, grad):
    """Compatibility test 17: a batch of all windows of a document equals reading it window by window."""
    model, ids = model_of(), rows(5)
    with torch.set_grad_enabled(grad):
        trained = model(ids, past_key_values=state_of(model, seen)).logits
    with torch.no_grad():
        read = model(ids.reshape(1, -1)).logits
    assert_close(trained.reshape(1, 80, -1), read, rtol=0, atol=1e-5)


SEES = {
    "batch": (CrossBatch(3, True, 4), lambda row, other: 0 <= row - other <= (0, 1, 2, 3, 0, 2, 3, 3)[row]),
    "documents": (CrossDocuments(2, 2), lambda row, other: other in ((row,), (row, row - 1, (row + 1) % 8))[row % 2]),
}


@pytest.mark.parametrize(("seen", "sees"), SEES.values(), ids=SEES)
def test_a_row_sees_those_it_should_and_no_other(seen, sees):
    """With one memory layer; through several, a row also sees what the rows before it saw."""
    model, ids = model_of(mem_layers=[1]), rows(8)
    with torch.no_grad():
        before = model(ids, past_key_values=state_of(model, seen)).logits
        for changed in range(8):
            other = ids.clone()
            other[changed] = rows(1, seed=9)[0]
            after = model(other, past_key_values=state_of(model, seen)).logits
            for row in range(8):
                assert torch.equal(before[row], after[row]) != sees(row, changed), (changed, row)


def test_nothing_is_seen_of_later_rows_through_several_layers():
    model, ids, seen = model_of(), rows(8), CrossBatch(3, True, 4)
    other = torch.cat((ids[:5], rows(3, seed=9)))
    with torch.no_grad():
        before, after = (model(each, past_key_values=state_of(model, seen)).logits for each in (ids, other))
    assert torch.equal(before[:5], after[:5])


@pytest.mark.parametrize("seen", [CrossBatch(0, True, 2), CrossDocuments(0, 2)], ids=["batch", "documents"])
def test_without_others_it_is_the_plain_model(seen):
    model, ids = model_of(), rows(4)
    with torch.no_grad():
        alone = torch.cat([model(row[None]).logits for row in ids])
        assert_close(model(ids, past_key_values=state_of(model, seen)).logits, alone)


def test_gradients_reach_positives_and_negatives():
    model, ids = model_of(mem_layers=[1]), rows(8)
    embedded = model.model.embed_tokens(ids).detach().requires_grad_()
    output = model(inputs_embeds=embedded, past_key_values=state_of(model, CrossBatch(6, True, 4)))
    output.logits[7].logsumexp(-1).sum().backward()
    reached = embedded.grad.abs().sum(dim=(1, 2))
    assert bool((reached[1:] > 1e-3).all())
    assert reached[0] == 0  # further back than the range


@pytest.mark.parametrize("seen", [CrossBatch(3, True, 2), CrossDocuments(2, 2)], ids=["batch", "documents"])
@pytest.mark.parametrize("every", [1, 2])
def test_gradients_are_the_same_under_checkpointing(seen, every):
    ids, grads = rows(4), []
    for checkpointed in (False, True):
        model = model_of(gradient_checkpoint_every_ith=every).train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids, past_key_values=state_of(model, seen), use_cache=False).loss.backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_rows_cannot_be_chosen():
    with pytest.raises(ValueError, match="cannot be chosen"):
        CrossBatchMemory(CrossBatch(1)).select(torch.tensor([0]))
    with pytest.raises(ValueError, match="only beside a window"):
        CrossBatchMemory(CrossBatch(1)).entries()
