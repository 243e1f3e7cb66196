"""Shapes: those of known checkpoints, and those that a configuration tells, as transformers reads it."""

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from longfocus.errors import CheckpointError
from longfocus.loading.architectures import to_longllama
from longfocus.loading.catalogue import MODEL_TABLE
from longfocus.planning.known_shapes import SHAPES
from longfocus.planning.shapes import FAMILIES, shape_of

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 61,
}
CLASSES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


@pytest.mark.parametrize("entry", MODEL_TABLE, ids=lambda entry: entry.name)
def test_known_shapes_are_those_of_the_catalogue(entry):
    shape = SHAPES[entry.name]
    assert 2 * shape.parameters == entry.bf16_bytes
    assert (shape.layers, shape.key_heads, shape.head_dim) == (entry.layers, entry.kv_heads, entry.head_dim)
    assert shape.context == entry.context
    assert shape.memory_layers == entry.memory_layers


def test_llama_2_7b_has_its_weights():
    assert SHAPES["llama-2-7b"].parameters == 6_738_415_616


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"num_key_value_heads": 2, "tie_word_embeddings": True},
        {"num_key_value_heads": 1, "head_dim": 16, "attention_bias": True, "mlp_bias": True},
    ],
    ids=["plain", "shared", "biased"],
)
@pytest.mark.parametrize("kind", CLASSES)
def test_weights_are_those_of_transformers_model(kind, more):
    if kind in ("mistral", "qwen2") and "mlp_bias" in more:
        more = {"num_key_value_heads": 1}
    if kind == "qwen3":
        more = {name: value for name, value in more.items() if name != "mlp_bias"}
    given = {"num_key_value_heads": 4, **SIZES, **more}
    config = CLASSES[kind](**given)
    model = AutoModelForCausalLM.from_config(config)
    shape = shape_of({"model_type": kind, **given})
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "max_position_embeddings": 777, "num_key_value_heads": 2},
        {"model_type": "mistral", "max_position_embeddings": 8192},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "mistral", "sliding_window": 512, "max_position_embeddings": 512},
        {"model_type": "qwen2", "num_attention_heads": 32, "hidden_size": 64},
        {"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 128},
        {
            "model_type": "qwen2",
            "num_key_value_heads": 2,
            "use_sliding_window": True,
            "sliding_window": 128,
            "max_window_layers": 2,
        },
        {"model_type": "qwen3", "num_key_value_heads": 2},
        {"model_type": "longllama", "mem_layers": [1, 2], "window_length": 128, "last_context_length": 128},
    ],
    ids=str,
)
def test_what_a_file_leaves_out_is_as_transformers_has_it(fields):
    fields = {**SIZES, **fields}
    ours, shape = to_longllama(fields), shape_of(fields)
    assert shape.key_heads == ours.num_key_value_heads
    assert shape.head_dim == ours.head_dim
    assert shape.context == ours.max_position_embeddings
    assert shape.window == ours.window_length
    assert shape.memory_layers == tuple(ours.mem_layers)
    assert shape.tied == ours.tie_word_embeddings


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "gpt2"}, "architecture 'gpt2'"),
        ({"model_type": "llama"}, "does not state hidden_size"),
        ({**SIZES, "model_type": "llama", "num_hidden_layers": "many"}, "num_hidden_layers is 'many'"),
        ({**SIZES, "model_type": "llama", "num_attention_heads": 0}, "num_attention_heads is 0"),
        ({**SIZES, "model_type": "llama", "vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({**SIZES, "model_type": "llama", "mem_layers": [9]}, r"mem_layers are \[9\]"),
    ],
)
def test_configurations_that_make_no_sense(fields, said):
    with pytest.raises(CheckpointError, match=said):
        shape_of(fields, "it")


def test_families_are_those_that_can_be_loaded():
    from longfocus.loading.architectures import FAMILIES as LOADED

    assert set(FAMILIES) == set(LOADED)
