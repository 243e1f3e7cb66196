"""Losses and gradients through windows and memory."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from longfocus.model.modeling import LongLlamaForCausalLM


def test_loss_is_over_all_windows(tiny, some_ids):
    """The mean over every token that has a label, also across the borders of windows."""
    model = tiny()
    ids = some_ids(2, 40)
    labels = ids.clone()
    labels[0, 5:20] = -100
    output = model(ids, labels=labels)
    expected = cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert_close(output.loss, expected)
    assert model(ids, labels=ids).loss != output.loss
    as_tuple = model(ids, labels=labels, return_dict=False)
    assert torch.equal(as_tuple[0], output.loss)
    assert torch.equal(as_tuple[1], output.logits)
    assert as_tuple[2].memory_length == 32


def test_padding_takes_no_part_in_the_loss(tiny, some_ids):
    model = tiny()
    ids = some_ids(1, 30)
    padded = torch.cat((torch.zeros(1, 7, dtype=torch.long), ids), dim=1)
    mask = (padded > 0).long()
    labels = torch.cat((torch.full((1, 8), -100), ids[:, 1:]), dim=1)  # the first token is no prediction of a token
    alone = model(ids, labels=ids).loss
    alone.backward()
    expected = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    loss = model(padded, attention_mask=mask, labels=labels).loss
    assert_close(loss, alone)
    loss.backward()
    for weight, grad in zip(model.parameters(), expected, strict=True):
        assert_close(weight.grad, grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"torch_attention": True}, {"window_overlap": 5}], ids=str)
def test_gradients_are_derivatives(tiny, some_ids, fields):
    """Against differences of the loss without gradients, which is computed another way, in double precision."""
    model = tiny(mem_dtype="float64", **fields).double()
    ids = some_ids(1, 40)
    weights = [model.model.layers[0].self_attn.k_proj.weight, model.model.layers[2].self_attn.v_proj.weight]
    weights += [model.model.embed_tokens.weight]
    draw = torch.Generator().manual_seed(0)
    factors = torch.randn((1, 40, 61), generator=draw, dtype=torch.float64)

    def loss():
        return (model(ids).logits * factors).mean()

    loss().backward()
    for weight in weights:
        direction = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
        direction[0] = 0  # the padding's embedding has no gradient
        losses = []
        with torch.no_grad():
            for step in (1e-4, -1e-4):
                weight += step * direction
                losses.append(loss())
                weight -= step * direction
        slope = (losses[0] - losses[1]) / 2e-4
        assert slope.abs() > 1e-4
        assert_close((weight.grad * direction).sum(), slope, rtol=1e-3, atol=0)


def test_gradients_reach_the_first_window_through_memory_only(tiny, some_ids):
    ids = some_ids(1, 40)
    labels = ids.clone()
    labels[:, :33] = -100  # the first place with a loss is 32, and the last token predicts nothing
    for mem_layers in ([0, 2], []):
        model = tiny(mem_layers=mem_layers)
        embeddings = model.model.embed_tokens(ids).detach().requires_grad_()
        model(inputs_embeds=embeddings, labels=labels).loss.backward()
        reached = embeddings.grad[0].abs().amax(dim=1) > 1e-6
        assert reached[32:39].all()
        assert reached[:32].all() if mem_layers else not reached[:32].any()


@pytest.mark.parametrize(("grouping", "expected"), [(None, {8}), ([1, 3], {2, 3}), ([2, 5], {3, 5}), ([9, 99], {8})])
def test_grouping_bounds_the_block_of_scores(tiny, some_ids, grouping, expected):
    """With gradients, memory layers attend for so many queries at a time."""
    model = tiny(mem_layers=[0, 1, 2], mem_attention_grouping=grouping)
    state = model(some_ids(1, 30), use_cache=False).past_key_values
    queries = set()

    class Attended(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "scaled_dot_product" in func.__name__:
                queries.add(args[0].shape[2])
            return func(*args, **(kwargs or {}))

    with Attended():
        model(some_ids(1, 8), past_key_values=state)
    assert queries == expected


@pytest.mark.parametrize("fields", [{}, {"qk_norm": True}, {"torch_attention": True}], ids=str)
@pytest.mark.parametrize("gradients", [True, False])
def test_autocast(tiny, some_ids, fields, gradients):
    """As Trainer trains and evaluates with bf16=True, also going on from a state."""
    model = tiny(**fields)
    ids, more = some_ids(2, 40), some_ids(2, 20, seed=1)
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    expected = model(ids, attention_mask=mask)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(ids, attention_mask=mask, labels=ids)
        further = model(more, past_key_values=output.past_key_values, labels=more)
        assert output.past_key_values.layers[1].keys.tensor.dtype == torch.bfloat16
    difference = (output.logits.float() - expected.logits)[mask.bool()].abs().mean()
    assert 0 < difference < 0.1
    if gradients:
        (output.loss + further.loss).backward()
        assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("asked", [None, {"use_reentrant": True}, {"use_reentrant": False}], ids=str)
def test_checkpointing_of_a_batch_going_on(tiny, some_ids, asked):
    """With unequal rows and a state; asking for the sort that loses gradients into memory does not lose them."""
    mask = torch.ones((2, 40), dtype=torch.long)
    mask[1, :9] = 0
    gradients = []
    for checkpointed in (False, True):
        model = tiny(window_overlap=3).train()
        if checkpointed:
            model.gradient_checkpointing_enable(asked)
        first = model(some_ids(2, 40), attention_mask=mask)
        more = some_ids(2, 30, seed=1)
        model(more, labels=more, past_key_values=first.past_key_values).loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, grad in gradients[0].items():
        assert_close(gradients[1][name], grad, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_.*` is deprecated:FutureWarning")
def test_checkpointing_is_for_training(tiny, some_ids):
    model = tiny()
    model.gradient_checkpointing_enable()
    calls = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    ids = some_ids(1, 8)
    for training, expected in ((False, 1), (True, 2)):
        calls.clear()
        model.train(training)
        model(ids, labels=ids).loss.backward()
        assert len(calls) == expected
    model.gradient_checkpointing_disable()
    calls.clear()
    model(ids, labels=ids).loss.backward()
    assert len(calls) == 1


def test_padding_row_starts_at_zero_and_other_weights_do_not(tiny_config):
    torch.manual_seed(0)
    model = LongLlamaForCausalLM(tiny_config(qk_norm=True, attention_bias=True, mlp_bias=True, initializer_range=0.02))
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (weight == 1).all()
        elif name.endswith("bias"):
            assert not weight.any()
        else:
            assert 0.015 < weight.std() < 0.025, name
    assert not model.model.embed_tokens.weight[0].any()
    assert model.model.embed_tokens.weight[1:].abs().amin(dim=1).min() > 0
