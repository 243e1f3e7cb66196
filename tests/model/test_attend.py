"""Attention by parts against one plain softmax in double precision."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longfocus.model import attend as module
from longfocus.model.attend import attend, attend_together, merge, mix, weigh

HEADS, DIM = 4, 16
CLOSE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


def tensors(rows, key_rows, groups, queries, keys, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = [(rows, HEADS, queries, DIM), *[(key_rows, groups, keys, DIM)] * 2]
    return [torch.randn(shape, generator=draw).to(dtype) for shape in shapes]


def plain(query, key, value, scale, causal=False, keep=None):
    """Output and log-sum-exp of one softmax; a query that sees nothing has zeros and -inf."""
    shape = (query.shape[0], *key.shape[1:])
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.double().expand(shape).repeat_interleave(repeats, 1) for tensor in (key, value))
    scores = query.double() @ key.mT * scale
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    if keep is not None:
        scores = scores.masked_fill(~keep, float("-inf"))
    return torch.softmax(scores, -1).nan_to_num(0) @ value, torch.logsumexp(scores, -1)


def agree(found, expected, dtype, factor=1.0):
    output, lse = found
    assert output.dtype == dtype
    assert lse.dtype == torch.float32
    assert_close(output.double(), expected[0], rtol=0, atol=factor * CLOSE[dtype])
    assert_close(lse.double(), expected[1], rtol=0, atol=factor * CLOSE[dtype])  # infinities must be equal


def mask_of(kind, rows, queries, keys):
    draw = torch.Generator().manual_seed(1)
    if kind == "each query":
        return torch.rand((rows, 1, queries, keys), generator=draw) > 0.5
    if kind == "each row":
        return torch.rand((rows, 1, 1, keys), generator=draw) > 0.5
    if kind == "the last two":  # whole blocks of the kernel see nothing before that
        return (torch.arange(keys) >= keys - 2).expand(rows, 1, 1, -1)
    keep = torch.rand((rows, 1, queries, keys), generator=draw) > 0.5
    keep[:, :, 0] = False
    keep[0] = False
    return keep


@pytest.fixture(params=["kernel", "plain products"])
def way(request, monkeypatch):
    """By torch's kernel for CPUs, and the way for devices that have none which tells the sum."""
    if request.param == "plain products":
        monkeypatch.setattr(module, "_CPU_FLASH", None)
        monkeypatch.setattr(module, "_SCORE_BLOCK", 1400)  # so 600 keys are three blocks for 7 queries
    elif module._CPU_FLASH is None:
        pytest.skip("this torch has no such kernel")
    return 2.0 if request.param == "plain products" else 1.0  # there scores are rounded to the model's dtype


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("keys", [1, 5, 600])
def test_one_part(way, dtype, groups, keys):
    """Whatever the shapes: rows that share keys, heads that share keys, any number of queries, any mask."""
    for rows, queries, kind in product((1, 3), (1, 7), (None, "each query", "each row", "the last two", "nothing")):
        for key_rows in {1, rows}:
            query, key, value = tensors(rows, key_rows, groups, queries, keys, dtype)
            keep = None if kind is None else mask_of(kind, rows, queries, keys)
            found = attend(query, key, value, scale=0.3, keep=keep)
            agree(found, plain(query, key, value, 0.3, keep=keep), dtype, way)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 70, 600])
def test_causal(way, dtype, groups, length, monkeypatch):
    monkeypatch.setattr(module, "_SCORE_BLOCK", 200 * length)
    query, key, value = tensors(2, 2, groups, length, length, dtype)
    agree(attend(query, key, value, scale=0.3, causal=True), plain(query, key, value, 0.3, causal=True), dtype, way)


def test_no_queries():
    query, key, value = tensors(2, 2, 2, 0, 5)
    output, lse = attend(query, key, value, scale=0.3)
    assert output.shape == (2, HEADS, 0, DIM)
    assert lse.shape == (2, HEADS, 0)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    masked=st.lists(st.sampled_from(["all", "none", "some"]), min_size=6, max_size=6),
    queries=st.integers(1, 5),
    groups=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_parts_joined_are_one_softmax(lengths, masked, queries, groups, dtype, seed):
    """Keys cut anywhere, in any order, some parts seen by nobody."""
    total = sum(lengths)
    query, key, value = tensors(2, 2, groups, queries, total, dtype, seed)
    draw = torch.Generator().manual_seed(seed)
    keeps = []
    for length, how in zip(lengths, masked, strict=False):
        some = torch.rand((2, 1, queries, length), generator=draw) > 0.5
        keeps.append({"all": some | True, "none": some & False, "some": some}[how])
    keep = torch.cat(keeps, dim=-1)
    parts = [
        attend(query, part_key, part_value, scale=0.3, keep=part_keep)
        for part_key, part_value, part_keep in zip(key.split(lengths, 2), value.split(lengths, 2), keeps, strict=True)
    ]
    expected = plain(query, key, value, 0.3, keep=keep)
    agree(merge(parts), expected, dtype, factor=2)
    agree(merge(parts[::-1]), expected, dtype, factor=2)
    agree(merge(iter([merge(parts[:2]), *parts[2:]])), expected, dtype, factor=2)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_joining_many_parts_costs_no_precision(dtype):
    """A long memory is many parts: their rounding must not add up."""
    query, key, value = tensors(1, 1, HEADS, 8, 128 * 32, dtype)
    expected = plain(query, key, value, 0.3)[0]
    errors = [
        (output.double() - expected).square().mean().sqrt()
        for output, _ in (
            attend(query, key, value, scale=0.3),
            merge([attend(query, *part, scale=0.3) for part in zip(key.split(32, 2), value.split(32, 2), strict=True)]),
        )
    ]
    assert errors[1] < 2 * errors[0] + 1e-6


def test_joining_takes_any_size_of_score():
    """Sums that would overflow or vanish if they were not kept as logarithms."""
    query, key, value = tensors(1, 1, 4, 3, 8)
    for factor in (1e-4, 1.0, 300.0):
        halves = [
            attend(query * factor, key[:, :, here], value[:, :, here], scale=1.0) for here in (slice(4), slice(4, 8))
        ]
        output, lse = merge(halves)
        expected = plain(query * factor, key, value, 1.0)
        assert_close(output.double(), expected[0], rtol=0, atol=1e-4)
        assert_close(lse.double(), expected[1], rtol=1e-6, atol=1e-5)


def test_joining_one_part_gives_it_back():
    part = attend(*tensors(1, 1, 2, 3, 4), scale=0.3)
    assert all(torch.equal(same, tensor) for same, tensor in zip(merge([part]), part, strict=True))


def test_scores_and_mixtures_share_heads():
    query, key, value = tensors(3, 1, 2, 5, 7)
    scores = weigh(query, key, 0.3)
    assert scores.shape == (3, HEADS, 5, 7)
    repeated = key.repeat_interleave(2, 1)
    assert_close(scores, query @ repeated.mT * 0.3, rtol=0, atol=1e-5)
    weights = scores.softmax(-1)
    assert_close(mix(weights, value), weights @ value.repeat_interleave(2, 1), rtol=0, atol=1e-5)
    assert weigh(query.bfloat16(), key.bfloat16(), 0.3).dtype == torch.float32


@pytest.mark.parametrize("kind", [None, "each query", "causal"])
@pytest.mark.parametrize("key_rows", [1, 3])
def test_together(kind, key_rows):
    """The way with gradients: the same output, and gradients for all three."""
    query, key, value = (tensor.requires_grad_() for tensor in tensors(3, key_rows, 2, 6, 6))
    keep = mask_of("each query", 3, 6, 6) | torch.eye(6, dtype=torch.bool) if kind == "each query" else None
    output = attend_together(query, key, value, scale=0.3, allowed=keep, causal=kind == "causal")
    expected = plain(query, key, value, 0.3, causal=kind == "causal", keep=keep)[0]
    assert_close(output.double(), expected, rtol=0, atol=2e-5)
    for tensor, grad in zip(
        (query, key, value), torch.autograd.grad(expected.square().sum(), (query, key, value)), strict=True
    ):
        found = torch.autograd.grad(output.square().sum(), tensor, retain_graph=True)[0]
        assert_close(found, grad, rtol=0, atol=1e-4)


@pytest.mark.parametrize("fields", [{}, {"window_overlap": 5}, {"num_key_value_heads": 4}], ids=str)
def test_model_without_the_kernel(way, tiny, some_ids, fields):
    """Of unequal rows, over several windows and token by token, against the way with gradients."""
    model = tiny(**fields)
    mask = torch.ones((2, 40), dtype=torch.long)
    mask[1, :13] = 0
    ids, more = some_ids(2, 40), some_ids(2, 30, seed=1)
    logits = {}
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            output = model(ids, attention_mask=mask)
            found = [output.logits.detach()]
            for step in range(12):
                output = model(more[:, step : step + 1], past_key_values=output.past_key_values)
                found.append(output.logits.detach())
            found.append(model(more[:, 12:], past_key_values=output.past_key_values).logits.detach())
        logits[gradients] = torch.cat(found, dim=1)
    assert_close(logits[False], logits[True], rtol=0, atol=2e-5)
