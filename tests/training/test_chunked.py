"""Layers in pieces: the same results and gradients, less at once, one instance only, and undone without a trace."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.testing import assert_close

from longfocus.training.chunked import POINTWISE, run_in_pieces, run_whole
from tests.small_models import llama, long_llama


def adapted(**settings):
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules="all-linear", **settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return model


def some_ids():
    return torch.randint(3, 61, (2, 23), generator=torch.Generator().manual_seed(1))


def loss_and_gradients(model):
    ids = some_ids()
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def largest_call(model, part):
    """The most tokens that a product within that part of the first layer sees at once."""
    lengths = []
    layer = next(module for name, module in model.named_modules() if name.endswith("layers.0"))
    hooks = [
        module.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[-2]))
        for name, module in layer.get_submodule(part).named_modules()
        if name and isinstance(module, nn.Linear)
    ]
    loss_and_gradients(model)
    for hook in hooks:
        hook.remove()
    return max(lengths)


@pytest.mark.parametrize("parts", [("mlp",), POINTWISE], ids=["mlp", "all"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("make", [llama, long_llama, adapted], ids=lambda make: make.__name__)
def test_results_and_gradients_stay_the_same(make, checkpointed, parts):
    model = make()
    if checkpointed:
        bare = model if make is not adapted else model.get_base_model()
        bare.activation_checkpointing_enable()
    loss, expected = loss_and_gradients(model)
    assert len(run_in_pieces(model, 5, parts)) == 3 * len(parts)
    pieces, found = loss_and_gradients(model)
    assert_close(pieces, loss, rtol=1e-6, atol=0)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert_close(found[name], grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(("make", "tokens"), [(llama, 5), (adapted, 1), (adapted, 22), (llama, 23), (llama, 99)])
def test_nothing_in_a_part_is_longer_than_a_piece(make, tokens):
    model = make()
    assert largest_call(model, "mlp") == 23
    run_in_pieces(model, tokens)
    assert largest_call(model, "mlp") == min(tokens, 23)


def test_only_inputs_are_kept_for_gradients():
    """What autograd saves in an MLP is no wider than its input."""
    mlp = llama().model.layers[0].mlp
    states = torch.randn(1, 40, 32, requires_grad=True)
    weights = {weight.untyped_storage().data_ptr() for weight in mlp.parameters()}

    def kept():
        sizes = {}

        def pack(tensor):
            if tensor.untyped_storage().data_ptr() not in weights:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = mlp(states)
        assert output.shape == states.shape
        return sum(sizes.values())

    assert kept() > 2 * states.nbytes
    holder = nn.Module()
    holder.layers = nn.ModuleList([nn.Module()])
    holder.layers[0].mlp = mlp
    run_in_pieces(holder, 8)
    assert kept() <= states.nbytes


def test_dropout_of_adapters_is_drawn_the_same_for_gradients():
    """The piece that is computed anew drops what the first one dropped: the slope is that of the loss."""
    model = adapted(lora_dropout=0.5).double()
    run_in_pieces(model, 5)
    weight = model.get_submodule("base_model.model.model.layers.1.mlp.up_proj.lora_A.default").weight
    factors = torch.randn(61, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.manual_seed(7)
    model(input_ids=some_ids()).logits.mul(factors).mean().backward()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    losses = []
    with torch.no_grad():
        for step in (1e-3, -1e-3):
            weight += step * direction
            torch.manual_seed(7)
            losses.append(model(input_ids=some_ids()).logits.mul(factors).mean())
            weight -= step * direction
    assert_close((weight.grad * direction).sum(), (losses[0] - losses[1]) / 2e-3, rtol=1e-3, atol=0)


def test_one_instance_only_and_undone():
    model, other = llama(), llama()
    before = [dict(vars(module)) for module in model.modules()]
    run_in_pieces(model, 5, POINTWISE)
    assert largest_call(other, "mlp") == 23
    run_whole(model)
    assert [vars(module).keys() for module in model.modules()] == [names.keys() for names in before]
    assert largest_call(model, "mlp") == 23
    assert model.state_dict().keys() == other.state_dict().keys()


def test_a_copy_runs_its_own_weights():
    model = llama()
    run_in_pieces(model, 5)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
    assert_close(copied(input_ids=some_ids()).logits, llama()(input_ids=some_ids()).logits)
    assert largest_call(copied, "mlp") == 5


def test_without_gradients_too():
    model = llama().eval()
    with torch.no_grad():
        expected = model(input_ids=some_ids()).logits
        run_in_pieces(model, 5, POINTWISE)
        assert_close(model(input_ids=some_ids()).logits, expected)


def test_refusals():
    model = llama()
    with pytest.raises(ValueError, match="piece of 0 tokens"):
        run_in_pieces(model, 0)
    with pytest.raises(ValueError, match="no layer with a part experts"):
        run_in_pieces(model, 5, ("mlp", "experts"))
    run_in_pieces(model, 5)
    with pytest.raises(ValueError, match="forward of its own"):
        run_in_pieces(model, 5, POINTWISE)
    assert "forward" not in vars(model.model.layers[0].self_attn.q_proj)
