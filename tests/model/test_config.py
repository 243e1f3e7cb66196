"""Fields of the configuration: what they may be, and that they survive a file."""

import pytest
import torch
from transformers import AutoConfig

from longfocus.model.config import LongLlamaConfig

WRONG = [
    ({"mem_layers": [3]}, "mem_layers has layer 3, but the model has layers 0 to 2"),
    ({"mem_layers": [-1]}, "mem_layers has layer -1"),
    ({"mem_layers": [1.5]}, "mem_layers has layer 1.5"),
    ({"num_hidden_layers": 1}, "mem_layers has layer 2, but the model has layers 0 to 0"),
    ({"mem_dtype": "bfloat17"}, "mem_dtype is 'bfloat17'"),
    ({"mem_dtype": "int64"}, "mem_dtype is 'int64'"),
    ({"mem_dtype": "nn"}, "mem_dtype is 'nn'"),
    ({"mem_attention_grouping": (0, 1)}, "Attention grouping should be positive"),
    ({"mem_attention_grouping": [1]}, "wants .heads, queries."),
    ({"gradient_checkpoint_every_ith": 0}, "gradient_checkpoint_every_ith is 0"),
    ({"last_context_length": 0}, "last_context_length is 0"),
    ({"window_length": 0}, "window_length is 0"),
    ({"mem_discount": -0.1}, "mem_discount is -0.1"),
    ({"mem_discount": float("nan")}, "mem_discount is nan"),
    ({"window_overlap": -1}, "window_overlap is -1"),
    ({"window_overlap": 16}, "below the window of 16 tokens"),
    ({"window_overlap": 8, "window_length": 8}, "below the window of 8 tokens"),
    ({"sink_tokens": -1}, "sink_tokens is -1"),
    ({"sink_tokens": 4, "window_overlap": 12}, "below the window of 16 tokens"),
    ({"hidden_size": 30, "head_dim": None}, "hidden_size 30 is no multiple of 4"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=str)
def test_wrong_fields(tiny_config, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=str)
def test_wrong_fields_given_to_from_pretrained(tiny_config, tmp_path, fields, message):
    """transformers puts them on the finished configuration; they are checked all the same."""
    tiny_config().save_pretrained(tmp_path)
    for load in (LongLlamaConfig.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, **fields)


def test_uneven_heads(tiny):
    with pytest.raises(ValueError, match="4 attention heads cannot share 3 key-value heads"):
        tiny(num_key_value_heads=3)


def test_defaults_are_longllamas():
    config = LongLlamaConfig()
    assert (config.mem_layers, config.mem_positionals, config.mem_dtype) == ([], True, "bfloat16")
    assert (config.mem_attention_grouping, config.torch_attention) == (None, False)
    assert (config.gradient_checkpoint_every_ith, config.last_context_length) == (1, 1024)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert (config.window, config.window_overlap, config.rms_norm_eps) == (2048, 0, 1e-6)
    assert config.rope_parameters["rope_theta"] == 10000.0


def test_forms_of_fields(tiny_config):
    """Duplicates, order, tuples, None and a dtype itself."""
    config = tiny_config(mem_layers=(2, 0, 2), mem_dtype=torch.float16, mem_attention_grouping=(2, 8))
    assert config.mem_layers == [0, 2]
    assert config.mem_dtype == "float16"
    assert config.memory_dtype == torch.float16
    assert config.mem_attention_grouping == [2, 8]
    assert tiny_config(mem_layers=None).mem_layers == []
    assert tiny_config().window == 16
    assert tiny_config(window_length=9).window == 9


def test_file(tiny_config, tmp_path):
    """Every field comes back, and a keyword takes the place of what the file says."""
    fields = {
        "mem_layers": [1],
        "mem_positionals": False,
        "mem_dtype": "float16",
        "mem_attention_grouping": [2, 8],
        "torch_attention": True,
        "gradient_checkpoint_every_ith": 2,
        "last_context_length": 5,
        "window_length": 12,
        "window_overlap": 3,
        "sink_tokens": 2,
        "mem_discount": 0.5,
        "attention_out_bias": False,
        "qk_norm": True,
    }
    assert set(LongLlamaConfig.__annotations__) - {"pad_token_id"} == set(fields), "a new field is to be tested here"
    defaults = LongLlamaConfig()
    assert all(getattr(defaults, name) != value for name, value in fields.items())
    tiny_config(**fields).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is LongLlamaConfig
    assert {name: getattr(config, name) for name in fields} == fields
    changes = {"mem_layers": (2, 1, 2), "mem_dtype": torch.bfloat16, "last_context_length": 7, "window_overlap": 0}
    config, unused = AutoConfig.from_pretrained(tmp_path, **changes, other=1, return_unused_kwargs=True)
    assert unused == {"other": 1}
    assert (config.mem_layers, config.mem_dtype, config.last_context_length) == ([1, 2], "bfloat16", 7)
    assert (config.window_overlap, config.window_length) == (0, 12)
