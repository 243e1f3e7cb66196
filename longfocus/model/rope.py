"""Rotary position embedding within a window, with every scaling that transformers knows.

Shapes: B batch, H heads, T tokens, D head_dim.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .config import LongLlamaConfig


class RotaryEmbedding:
    """Cosines and sines for positions counted from the start of a window.

    Kinds whose frequencies depend on the length (dynamic NTK, LongRoPE) are computed anew for the extent of each
    window, so that a result never depends on what the model was called with before.

    Attributes:
        depends_on_length: Whether the frequencies depend on the length of the window.
        attention_scaling: Factor on rotated queries and on rotated keys (1 except for YaRN and LongRoPE). A key read
            from memory is rotated to position 0, which leaves it as it is but for this factor.
    """

    def __init__(self, config: LongLlamaConfig) -> None:
        self._config = config
        parameters: Any = config.rope_parameters
        self._kind: str = parameters["rope_type"]
        self._theta: float = parameters["rope_theta"]
        assert config.head_dim is not None
        self._dim = config.head_dim
        self._fixed: dict[torch.device, Tensor] = {}
        self.depends_on_length = self._kind in ("dynamic", "longrope")
        self.attention_scaling = 1.0 if self._kind == "default" else float(ROPE_INIT_FUNCTIONS[self._kind](config)[1])

    def _frequencies(self, device: torch.device, extent: int) -> Tensor:
        """Inverse frequencies [D / 2] in float32 for a window of `extent` tokens."""
        if self.depends_on_length:
            frequencies, _ = ROPE_INIT_FUNCTIONS[self._kind](self._config, device, seq_len=extent)
            return frequencies.to(device=device, dtype=torch.float32)
        if device not in self._fixed:
            if self._kind == "default":
                exponents = torch.arange(0, self._dim, 2, dtype=torch.float32, device=device)
                found = self._theta ** (-exponents / self._dim)
            else:
                found, _ = ROPE_INIT_FUNCTIONS[self._kind](self._config, device)
            self._fixed[device] = found.to(device=device, dtype=torch.float32)
        return self._fixed[device]

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, 1, T, D] in `dtype` for `positions` [B, T]."""
        if self.depends_on_length:  # each row has the frequencies of its own extent, whatever stands beside it
            extents = (positions.max(dim=1).values + 1).tolist()
            found = {extent: self._frequencies(positions.device, extent) for extent in set(extents)}
            frequencies = torch.stack([found[extent] for extent in extents])[:, None, None]
        else:
            frequencies = self._frequencies(positions.device, 0)
        angles = positions[:, None, :, None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        cosines, sines = angles.cos(), angles.sin()
        if self.attention_scaling != 1.0:
            cosines, sines = cosines * self.attention_scaling, sines * self.attention_scaling
        return cosines.to(dtype), sines.to(dtype)


def rotate(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate `states` [B, H, T, D]; dimension i is paired with i + D / 2, as in Hugging Face's LLaMA files."""
    half = states.shape[-1] // 2
    first, second = states[..., :half], states[..., half:]
    rotated = states * cosines
    rotated[..., :half].addcmul_(second, sines[..., :half], value=-1)
    rotated[..., half:].addcmul_(first, sines[..., half:])
    return rotated.to(states.dtype)  # under autocast the tables are wider
