"""Small models of three layers, with weights large enough that outputs differ."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM

FIELDS = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**FIELDS)).train()


def long_llama():
    """Whose window holds what the tests give it, so that it has no memory."""
    torch.manual_seed(0)
    config = LongLlamaConfig(**FIELDS, window_length=64, last_context_length=64)
    return LongLlamaForCausalLM(config).train()
