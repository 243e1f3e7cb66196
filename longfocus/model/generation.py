"""What transformers' `generate` has to know about a state that is a value and may hold memory only."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from .cache import LongLlamaCache


class LongLlamaGenerationMixin(GenerationMixin):
    """`generate` for models that take and return a `LongLlamaCache`."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """False: `generate` starts without a state, the first call makes one."""
        return False

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor | None, dict[str, Any]]:
        state = kwargs.get("past_key_values")
        rows = None if input_ids is None else input_ids.shape[0]
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)
        if isinstance(state, LongLlamaCache) and expand_size > 1 and rows is not None:
            each = torch.arange(rows).repeat_interleave(expand_size)
            kwargs["past_key_values"] = state.for_rows(each)
        return input_ids, kwargs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        given = model_kwargs.get("past_key_values")
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        if not model_kwargs.get("use_cache", True):  # each step reads the whole text; its memory is not the next one's
            del model_kwargs["past_key_values"]
            model_kwargs |= {} if given is None else {"past_key_values": given}
        return model_kwargs

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Inputs of the next call of `forward`; positions are left to it, since they count on from the state's window.

        `generate` takes a prompt as embeddings only where it finds the name `inputs_embeds` here.
        """
        kwargs.pop("position_ids", None)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, **kwargs
        )
        return inputs

    def _reorder_cache(self, past_key_values: LongLlamaCache, beam_idx: Tensor) -> LongLlamaCache:
        return past_key_values.for_rows(beam_idx)
