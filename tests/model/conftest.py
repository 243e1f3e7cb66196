"""Tiny models: one with random weights, and the one whose outputs LongLLaMA's own code published for us."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM
from tests.small_models import FIELDS

WEIGHT_ORDER = [
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    "input_layernorm",
    "post_attention_layernorm",
]


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this folder."""


@pytest.fixture(scope="session")
def tiny_config():
    """Make a configuration: 3 layers, a window of 16, memory in layers 0 and 2, two query heads to a key head."""

    def make(**fields):
        return LongLlamaConfig(
            **{
                **FIELDS,
                "max_position_embeddings": 16,
                "last_context_length": 8,
                "mem_layers": [0, 2],
                "mem_dtype": "float32",
                "eos_token_id": None,
                **fields,
            }
        )

    return make


@pytest.fixture(scope="session")
def tiny(tiny_config):
    """Make a model of that configuration, in evaluation mode; equal fields give equal weights."""

    def make(kind=LongLlamaForCausalLM, **fields):
        torch.manual_seed(1)
        return kind(tiny_config(**fields)).eval()

    return make


@pytest.fixture(scope="session")
def some_ids():
    """Token ids, without the padding id 0."""

    def make(*shape, seed=0):
        return torch.randint(1, 61, shape, generator=torch.Generator().manual_seed(seed))

    return make


def published_weight(number, shape, is_norm):
    state = 1000003 * (number + 1) % 2**31
    count = shape[0] * (1 if is_norm else shape[1])
    outputs = []
    for _ in range(16 + count):
        state = (1103515245 * state + 12345) % 2**31
        outputs.append(2 * state / 2**31 - 1)
    uniform = torch.tensor(outputs[16:], dtype=torch.float64).view(shape)
    return (1 + 0.25 * uniform if is_norm else 0.35 * uniform).float()


@pytest.fixture(scope="session")
def published_weights():
    names = ["model.embed_tokens"]
    names += [f"model.layers.{layer}.{part}" for layer in range(4) for part in WEIGHT_ORDER]
    names += ["model.norm", "lm_head"]
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4
    )
    shapes = {name: weight.shape for name, weight in LlamaForCausalLM(config).state_dict().items()}
    return {
        f"{name}.weight": published_weight(number, shapes[f"{name}.weight"], name.endswith("norm"))
        for number, name in enumerate(names)
    }


@pytest.fixture(scope="session")
def published(published_weights, tiny_config):
    """Make the model of the published values: a window of 16, the last context of 8, memory in layers 1 and 2."""

    def make(**fields):
        config = tiny_config(
            **{
                "num_hidden_layers": 4,
                "num_key_value_heads": None,
                "mem_layers": [1, 2],
                "rms_norm_eps": 1e-6,
                "rope_theta": 1e4,
                **fields,
            }
        )
        model = LongLlamaForCausalLM(config).eval()
        model.load_state_dict(published_weights)
        return model

    return make


@pytest.fixture(scope="session")
def published_ids():
    """Tokens `start` to `stop` of the published sequence, [1, stop - start]."""

    def make(start, stop):
        return torch.tensor([[3 + (7 * i * i + 3 * i + 5) % 58 for i in range(start, stop)]])

    return make


@pytest.fixture(scope="session")
def llama_of():
    """transformers' own LLaMA with a model's weights and shape."""

    def make(model):
        config = model.config
        shape = {
            name: getattr(config, name)
            for name in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
                "rms_norm_eps",
                "rope_parameters",
                "eos_token_id",
                "pad_token_id",
            )
        }
        llama = LlamaForCausalLM(LlamaConfig(**shape)).eval()
        llama.load_state_dict(model.state_dict())
        return llama

    return make
