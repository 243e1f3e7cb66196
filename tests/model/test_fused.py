"""Products taken together with what follows them: the same numbers, and only where nobody could notice."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longfocus.model import fused
from longfocus.model.config import LongLlamaConfig
from longfocus.model.layers import LongLlamaMLP, LongLlamaRMSNorm
from longfocus.model.modeling import LongLlamaForCausalLM

needs_products = pytest.mark.skipif(not fused._works(), reason="torch has no such products here")


def linear(inputs, outputs, bias=False, dtype=torch.bfloat16):
    torch.manual_seed(inputs + outputs)
    module = nn.Linear(inputs, outputs, bias=bias)
    return module.to(dtype)


def close(found, wanted):
    return (found.float() - wanted).norm() < 0.01 * wanted.norm()


@needs_products
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 40), (2, 17), (3, 5, 8)])
def test_they_are_what_the_steps_give(shape, bias):
    module = linear(64, 96, bias)
    states, other = torch.randn(*shape, 64).bfloat16(), torch.randn(*shape, 96).bfloat16()
    with torch.no_grad():
        product = F.linear(states.float(), module.weight.float(), None if module.bias is None else module.bias.float())
        assert close(fused.silu_of(module, states), F.silu(product))
        assert close(fused.times(module, states, other), product * other.float())
        assert close(fused.plus(module, states, other), product + other.float())


@needs_products
def test_where_they_are_used():
    module, states = linear(64, 96), torch.randn(1, 40, 64).bfloat16()
    with torch.no_grad():
        assert fused.fuses(states, module, linear(64, 64))
        assert not fused.fuses(states[:, : fused.FEWEST - 1], module)
        assert not fused.fuses(states.float(), module)
        assert not fused.fuses(states, module, linear(64, 64, dtype=torch.float32))
        assert not fused.fuses(states, module, nn.Sequential(module))
        assert not fused.fuses(states.to("meta"), module)
        with module.register_forward_hook(lambda *_: None):
            assert not fused.fuses(states, module)
        module.forward = lambda given: given
        assert not fused.fuses(states, module)
        del module.forward
        assert fused.fuses(states, module)
    assert not fused.fuses(states, module)


@needs_products
@pytest.mark.parametrize("activation", ["silu", "swish", "gelu"])
def test_an_mlp_with_another_activation_keeps_it(activation):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 1}
    mlp = LongLlamaMLP(LongLlamaConfig(vocab_size=50, hidden_act=activation, **sizes)).requires_grad_(False)
    states = torch.randn(1, 40, 64).bfloat16()
    residual = torch.randn(1, 40, 64).bfloat16()
    wanted = mlp(states.float(), residual.float())
    with torch.no_grad():
        assert close(mlp.bfloat16()(states, residual), wanted)


def test_finding_out_draws_no_random_numbers():
    fused._works.cache_clear()
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    fused._works()
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3, 0.0])
def test_the_norm_is_the_same_without_gradients(dtype, size):
    norm = LongLlamaRMSNorm(64, 1e-5).to(dtype).requires_grad_(False)
    norm.weight.uniform_(0.5, 2.0)
    states = (size * torch.randn(3, 7, 64)).to(dtype)
    with torch.enable_grad():
        wanted = norm(states)
    with torch.no_grad():
        found = norm(states)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted)


@needs_products
def test_a_window_is_the_same_with_them_and_without(monkeypatch):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3}
    model = LongLlamaForCausalLM(LongLlamaConfig(vocab_size=50, mem_layers=[1], **sizes)).eval()
    ids = torch.randint(50, (2, 40))
    with torch.no_grad():
        exact = model(ids).logits
        together = model.bfloat16()(ids).logits.float()
        monkeypatch.setattr("longfocus.model.layers.fuses", lambda *_: False)
        apart = model(ids).logits.float()
    assert not torch.equal(together, apart)
    assert (together - exact).norm() < 1.1 * (apart - exact).norm()
