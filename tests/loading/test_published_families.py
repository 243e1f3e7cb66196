"""Public checkpoints of the LLaMA family: the fields of their config.json as published, old spellings and all.

Whole configurations are compared without weights; then each is made small, in its own spelling, and must compute what
transformers computes from the same folder.
"""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from longfocus.loading.architectures import to_longllama
from longfocus.loading.load import load
from longfocus.model.modeling import LongLlamaForCausalLM
from tests.loading.conftest import VOCABULARY

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "tie_word_embeddings": False,
    "use_cache": True,
}
LLAMA_1 = {
    **LLAMA,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "max_sequence_length": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "torch_dtype": "float16",
    "transformers_version": "4.28.0.dev0",
    "vocab_size": 32000,
}
LLAMA_2 = {
    **LLAMA,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "vocab_size": 32000,
}
LLAMA_3 = {
    **LLAMA_2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0",
    "vocab_size": 128256,
}
LLAMA_31_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA_31 = {
    **LLAMA_3,
    "eos_token_id": [128001, 128008, 128009],
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "rope_scaling": LLAMA_31_ROPE,
    "transformers_version": "4.42.3",
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
QWEN_25 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN_3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
PUBLISHED = {
    "Llama 7B": LLAMA_1,
    "OpenLLaMA 3B v2": {**LLAMA_1, "hidden_size": 3200, "intermediate_size": 8640, "num_hidden_layers": 26},
    "Llama 2 7B": LLAMA_2,
    "Code Llama 7B": {
        **LLAMA_2,
        "max_position_embeddings": 16384,
        "rope_theta": 1000000,
        "torch_dtype": "bfloat16",
        "vocab_size": 32016,
    },
    "TinyLlama 1.1B": {
        **LLAMA_2,
        "attention_bias": False,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 22,
        "num_key_value_heads": 4,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
    },
    "SmolLM2 135M": {
        **LLAMA_2,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_size": 576,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536,
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "pad_token_id": 2,
        "rope_interleaved": False,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
        "vocab_size": 49152,
    },
    "Llama 3 8B": LLAMA_3,
    "Llama 3.1 8B": LLAMA_31,
    "Llama 3.2 1B": {
        **LLAMA_31,
        "head_dim": 64,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "rope_scaling": {**LLAMA_31_ROPE, "factor": 32.0},
        "tie_word_embeddings": True,
    },
    "Mistral 7B v0.1": MISTRAL,
    "Mistral 7B v0.3": {**MISTRAL, "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32768},
    "Qwen2.5 0.5B": QWEN_25,
    "Qwen3 0.6B": QWEN_3,
}
PARAMETERS = {
    "Llama 7B": 6_738_415_616,
    "OpenLLaMA 3B v2": 3_426_473_600,
    "Llama 2 7B": 6_738_415_616,
    "Code Llama 7B": 6_738_546_688,
    "TinyLlama 1.1B": 1_100_048_384,
    "SmolLM2 135M": 134_515_008,
    "Llama 3 8B": 8_030_261_248,
    "Llama 3.1 8B": 8_030_261_248,
    "Llama 3.2 1B": 1_235_814_400,
    "Mistral 7B v0.1": 7_241_732_096,
    "Mistral 7B v0.3": 7_248_023_552,
    "Qwen2.5 0.5B": 494_032_768,
    "Qwen3 0.6B": 596_049_920,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_whole(name):
    """As many parameters as the published file has; every field of rotation as transformers understands it."""
    fields = json.loads(json.dumps(PUBLISHED[name]))
    config = to_longllama(fields, name)
    with torch.device("meta"):
        model = LongLlamaForCausalLM(config)
    assert model.num_parameters() == PARAMETERS[name]
    theirs = AutoConfig.for_model(**fields)
    assert config.rope_parameters == theirs.rope_parameters
    for field in ("max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id", "tie_word_embeddings"):
        assert getattr(config, field) == getattr(theirs, field)


@pytest.mark.parametrize("name", PUBLISHED)
def test_small(name, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    fields = PUBLISHED[name]
    grouped = fields["num_attention_heads"] != fields.get("num_key_value_heads", fields["num_attention_heads"])
    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.2,
    }
    shape |= {"head_dim": 24} if "head_dim" in fields else {}
    shape |= {"num_key_value_heads": 2 if grouped else 4} if "num_key_value_heads" in fields else {}
    small = fields | shape
    made = {key: value for key, value in small.items() if key not in ("architectures", "model_type", "torch_dtype")}
    folder, _ = checkpoint(kind=small["model_type"], **{"num_key_value_heads": 4, **made})
    (folder / "config.json").write_text(json.dumps(small))

    loaded = load(folder, dtype="float32", device="cpu")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(theirs).__name__ == small["architectures"][0]
    tokens = torch.randint(3, VOCABULARY, (1, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(tokens).logits, theirs(tokens).logits, atol=1e-4, rtol=1e-4)
