"""Shapes of public checkpoints by their short names, for planning with a model that is not on this machine.

Figures of the checkpoints' own configurations. The names are those of `longfocus models`, and a few bases besides.
"""

from longfocus.planning.shapes import Shape


def _shape(
    attention: tuple[int, int, int, int],
    widths: tuple[int, int],
    vocabulary: int,
    context: int,
    *,
    tied: bool = False,
    biased: bool = False,
    normed: bool = False,
    memory_layers: tuple[int, ...] = (),
) -> Shape:
    """A shape of (layers, query heads, key heads, width of a head) and (hidden, MLP).

    `biased`: queries, keys and values have biases (Qwen2); `normed`: heads of queries and keys have norms (Qwen3).
    """
    layers, heads, key_heads, head_dim = attention
    biases = (heads + 2 * key_heads) * head_dim if biased else 2 * head_dim if normed else 0
    return Shape(
        layers,
        widths[0],
        widths[1],
        heads,
        key_heads,
        head_dim,
        vocabulary,
        context,
        tied,
        biases,
        None,
        memory_layers,
    )


_LLAMA_7B = (32, 32, 32, 128), (4096, 11008)
_OPEN_LLAMA_3B = (26, 32, 32, 100), (3200, 8640)

SHAPES: dict[str, Shape] = {
    "smollm2-135m-instruct": _shape((30, 9, 3, 64), (576, 1536), 49_152, 8192, tied=True),
    "smollm2-360m-instruct": _shape((32, 15, 5, 64), (960, 2560), 49_152, 8192, tied=True),
    "smollm2-1.7b-instruct": _shape((24, 32, 32, 64), (2048, 8192), 49_152, 8192, tied=True),
    "tinyllama-1.1b-chat": _shape((22, 32, 4, 64), (2048, 5632), 32_000, 2048),
    "llama-2-7b": _shape(*_LLAMA_7B, 32_000, 4096),
    "llama-3.2-1b-instruct": _shape((16, 32, 8, 64), (2048, 8192), 128_256, 131_072, tied=True),
    "llama-3.2-3b-instruct": _shape((28, 24, 8, 128), (3072, 8192), 128_256, 131_072, tied=True),
    "llama-3.1-8b-instruct": _shape((32, 32, 8, 128), (4096, 14_336), 128_256, 131_072),
    "llama-3.1-70b-instruct": _shape((80, 64, 8, 128), (8192, 28_672), 128_256, 131_072),
    "qwen2.5-0.5b-instruct": _shape((24, 14, 2, 64), (896, 4864), 151_936, 32_768, tied=True, biased=True),
    "qwen2.5-1.5b-instruct": _shape((28, 12, 2, 128), (1536, 8960), 151_936, 32_768, tied=True, biased=True),
    "qwen2.5-3b-instruct": _shape((36, 16, 2, 128), (2048, 11_008), 151_936, 32_768, tied=True, biased=True),
    "qwen2.5-7b-instruct": _shape((28, 28, 4, 128), (3584, 18_944), 152_064, 32_768, biased=True),
    "qwen3-0.6b": _shape((28, 16, 8, 128), (1024, 3072), 151_936, 40_960, tied=True, normed=True),
    "qwen3-1.7b": _shape((28, 16, 8, 128), (2048, 6144), 151_936, 40_960, tied=True, normed=True),
    "qwen3-4b": _shape((36, 32, 8, 128), (2560, 9728), 151_936, 40_960, tied=True, normed=True),
    "qwen3-8b": _shape((36, 32, 8, 128), (4096, 12_288), 151_936, 40_960, normed=True),
    "mistral-7b-instruct-v0.3": _shape((32, 32, 8, 128), (4096, 14_336), 32_768, 32_768),
    "open-llama-3b-v2": _shape(*_OPEN_LLAMA_3B, 32_000, 2048),
    "long-llama-3b-v1.1": _shape(*_OPEN_LLAMA_3B, 32_000, 2048, memory_layers=(6, 12, 18)),
    "long-llama-3b-instruct": _shape(*_OPEN_LLAMA_3B, 32_000, 2048, memory_layers=(6, 12, 18)),
    "codellama-7b-instruct": _shape(*_LLAMA_7B, 32_016, 16_384),
    "long-llama-code-7b": _shape(*_LLAMA_7B, 32_016, 4096, memory_layers=(8, 16, 24)),
}
"""Shapes by name."""
