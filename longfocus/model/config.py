"""Configuration of a LongLLaMA model: LLaMA's fields, LongLLaMA's fields, and what ours adds."""

import math
from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedConfig


class LongLlamaConfig(LlamaConfig):
    """Configuration of `LongLlamaModel`; a LLaMA configuration plus memory.

    Fields of LLaMA keep their meaning, grouped-query attention and RoPE scaling included. LongLLaMA's own:

    Attributes:
        mem_layers: Layers that have a memory; duplicates are dropped and the list is sorted.
        mem_positionals: False leaves rotary embedding out of memory layers altogether.
        mem_dtype: Name of the torch dtype in which memories are kept. Where the weights have another one, entries are
            cast a block at a time while they are attended to.
        mem_attention_grouping: (heads, queries) handled at once where attention scores have to be materialised; bounds
            memory, changes no result.
        torch_attention: Which of its two ways LongLLaMA attends in. Kept for its checkpoints; it changes nothing here:
            with gradients window and memory are laid end to end, without them separately computed parts are joined by
            their log-sum-exp, which copies nothing.
        gradient_checkpoint_every_ith: With gradient checkpointing, every how many layers are recomputed.
        last_context_length: How many of the last tokens of an input stay in the window. What comes before is cut in
            windows that pass through memory.

    Ours:
        window_length: Most tokens that a layer attends to directly; None means `max_position_embeddings`.
        window_overlap: How many tokens of the previous window stay in the next one, between 0 (as in LongLLaMA) and
            `window_length` - 1.
        sink_tokens: How many of the first tokens never leave the window. Models put attention that they have no use
            for on the first tokens; a window without them reads and writes worse (Xiao et al., "Efficient Streaming
            Language Models with Attention Sinks", 2023). 0 as in LongLLaMA.
        mem_discount: How much less a memory counts the longer it is. Where it has more entries than the window has
            tokens, their scores are lowered by this times log(entries / window_length): many entries of no use would
            together outweigh the window, and a softmax does not know how many they are. 0 as in LongLLaMA.
        attention_out_bias: Whether the output projection of attention has a bias; None means as `attention_bias`.
        qk_norm: Whether queries and keys are normalised per head before rotation, as in Qwen3.

    Raises:
        ValueError: A field is out of its range.
    """

    model_type = "longllama"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - the form transformers expects

    pad_token_id: int | None = 0
    mem_layers: list[int] | tuple[int, ...] | None = None
    mem_positionals: bool = True
    mem_dtype: str | torch.dtype = "bfloat16"
    mem_attention_grouping: list[int] | tuple[int, int] | None = None
    torch_attention: bool = False
    gradient_checkpoint_every_ith: int = 1
    last_context_length: int = 1024
    window_length: int | None = None
    window_overlap: int = 0
    sink_tokens: int = 0
    mem_discount: float = 0.0
    attention_out_bias: bool | None = None
    qk_norm: bool = False

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, but a field given as a keyword is checked as if it stood in `config_dict`."""
        fields = cls.__dataclass_fields__.keys() - PreTrainedConfig.__dataclass_fields__.keys()
        given = {name: kwargs.pop(name) for name in fields & kwargs.keys()}
        return super().from_dict({**config_dict, **given}, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} attention heads"
            )
        self.mem_layers = sorted(set(self.mem_layers or []))
        if isinstance(self.mem_dtype, torch.dtype):
            self.mem_dtype = str(self.mem_dtype).removeprefix("torch.")
        if self.mem_attention_grouping is not None:
            self.mem_attention_grouping = list(self.mem_attention_grouping)
        super().__post_init__(**kwargs)
        self._check_memory_fields()

    def _check_memory_fields(self) -> None:
        for layer in self.mem_layers or []:
            if layer not in range(self.num_hidden_layers):
                raise ValueError(
                    f"mem_layers has layer {layer}, but the model has layers 0 to {self.num_hidden_layers - 1}"
                )
        dtype = getattr(torch, str(self.mem_dtype), None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(
                f"mem_dtype is {self.mem_dtype!r}, which is no floating torch dtype; for example 'bfloat16'"
            )
        if self.mem_attention_grouping is not None and (
            len(self.mem_attention_grouping) != 2 or min(self.mem_attention_grouping) <= 0
        ):
            raise ValueError(
                "Attention grouping should be positive: mem_attention_grouping wants (heads, queries), "
                f"got {self.mem_attention_grouping}"
            )
        if self.gradient_checkpoint_every_ith <= 0:
            raise ValueError(
                f"gradient_checkpoint_every_ith is {self.gradient_checkpoint_every_ith}, must be 1 or more"
            )
        if self.last_context_length <= 0:
            raise ValueError(f"last_context_length is {self.last_context_length}, must be 1 or more")
        if not 0 <= self.mem_discount < math.inf:
            raise ValueError(f"mem_discount is {self.mem_discount}, must be a number from 0 up")
        if self.window_length is not None and self.window_length <= 0:
            raise ValueError(f"window_length is {self.window_length}, must be 1 or more")
        if self.window_overlap < 0 or self.sink_tokens < 0 or self.stride < 1:
            raise ValueError(
                f"window_overlap is {self.window_overlap} and sink_tokens is {self.sink_tokens}; they must be at least "
                f"0 and together below the window of {self.window} tokens"
            )

    @property
    def stride(self) -> int:
        """Most new tokens of a window that is full of those held from before."""
        return self.window - self.window_overlap - self.sink_tokens

    @property
    def window(self) -> int:
        """Most tokens that a layer attends to directly."""
        return self.window_length or self.max_position_embeddings

    @property
    def memory_dtype(self) -> torch.dtype:
        """`mem_dtype` as torch knows it."""
        dtype: torch.dtype = getattr(torch, str(self.mem_dtype))
        return dtype
