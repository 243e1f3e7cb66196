"""The parts of a model's configuration that transformers' GGUF reading leaves out or blurs.

transformers maps most of a GGUF's metadata to a configuration. Here the rest is put right from the same metadata:
rounded floats, the width of a head, and above all the scaling of the rotary positions, which would otherwise be
dropped in silence and cost a long-context model its length. What cannot be expressed is refused.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from longfocus.errors import CheckpointError
from longfocus.loading.gguf_header import GgufHeader

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig

# llama.cpp writes the factors that follow from these, but not the numbers; they are the same in every Llama 3 release.
_LLAMA3_BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def mend_config(config: "PreTrainedConfig", header: GgufHeader) -> None:
    """Complete `config`, as transformers read it from the file of `header`, in place."""
    config.rms_norm_eps = _shortest(header.get("attention.layer_norm_rms_epsilon"), 1e-6)
    head_dim = header.get("attention.key_length")
    if isinstance(head_dim, int):
        rotated = header.get("rope.dimension_count")
        if rotated is not None and rotated != head_dim:
            raise CheckpointError(
                f"{header.path} rotates {rotated} of a head's {head_dim} numbers; only whole heads can be converted."
            )
        # transformers does not map this key for qwen3, whose default of 128 holds for the published sizes only.
        config.head_dim = head_dim
    config.rope_parameters = _rope_parameters(config, header)
    # The file's own title ("Smollm2 135M 8k ...") would pass for the name of a repository to load from.
    config.__dict__.pop("_model_name_or_path", None)


def mend_generation_config(generation: "GenerationConfig", header: GgufHeader) -> None:
    """Let an answer end at the end of a turn as well as at the end of the text, where the file tells them apart."""
    ends: list[int] = []
    for key in ("eos_token_id", "eot_token_id", "eom_token_id"):
        token = header.tokenizer(key)
        if isinstance(token, int) and token not in ends:
            ends.append(token)
    if len(ends) > 1:
        generation.eos_token_id = ends


def _rope_parameters(config: "PreTrainedConfig", header: GgufHeader) -> dict[str, object]:
    theta = _shortest(header.get("rope.freq_base"), 10000.0)
    factor = header.get("rope.scaling.factor") or header.get("rope.scale_linear")
    # As llama.cpp has it: a factor without a word on its kind is linear.
    kind = header.get("rope.scaling.type") or ("none" if factor in (None, 1.0) else "linear")
    plain: dict[str, object] = {"rope_type": "default", "rope_theta": theta}
    if header.rope_factors is not None:
        if kind != "none":
            raise CheckpointError(f"{header.path} scales its rotary positions twice ({kind} and factors of its own).")
        return _llama3_parameters(config, header, plain)
    if kind == "none" or factor in (None, 1.0):
        return plain
    if kind == "linear":
        return {**plain, "rope_type": "linear", "factor": _shortest(factor, 1.0)}
    original = header.get("rope.scaling.original_context_length")
    if kind == "yarn" and original is not None and header.get("rope.scaling.attn_factor") in (None, 1.0):
        yarn = {"rope_type": "yarn", "factor": _shortest(factor, 1.0), "original_max_position_embeddings": original}
        return {**plain, **yarn}
    raise CheckpointError(f"{header.path} scales its rotary positions in a way that cannot be converted ({kind}).")


def _llama3_parameters(config: "PreTrainedConfig", header: GgufHeader, plain: dict[str, object]) -> dict[str, object]:
    """Recover Llama 3's scaling from the factors in the file, and prove it by computing them again."""
    factors = header.rope_factors
    assert factors is not None
    if np.allclose(factors, 1.0):
        return plain
    parameters = {**plain, "rope_type": "llama3", "factor": _shortest(factors.max(), 1.0), **_LLAMA3_BANDS}
    expected = _frequencies(config, plain) / _frequencies(config, parameters)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-3):
        raise CheckpointError(f"{header.path} has rotary factors that are not Llama 3's, and cannot be converted.")
    return parameters


def _frequencies(config: "PreTrainedConfig", parameters: dict[str, object]) -> np.ndarray:
    """The rotation frequencies that transformers will use for `parameters`."""
    import copy

    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    trial: Any = copy.deepcopy(config)
    trial.rope_parameters = parameters
    return LlamaRotaryEmbedding(trial).inv_freq.float().numpy()


def _shortest(value: object, default: float) -> float:
    """The shortest decimal that is the same float32: 1e-05, where a GGUF gives 9.999999747378752e-06."""
    return default if value is None else float(str(np.float32(value)))  # type: ignore[arg-type]
