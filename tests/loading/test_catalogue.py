import importlib.util
import subprocess
import sys

import pytest

from longfocus.loading.catalogue import MODEL_TABLE, WORKING_BYTES, suitable
from longfocus.loading.default_model import _HUB_REPO, DEFAULT_MODEL
from longfocus.planning.ways import fetching_layers

# hidden size, feed-forward size, query heads, vocabulary, tied embeddings, biases and head norms of a layer
SHAPES = {
    "smollm2-135m-instruct": (576, 1536, 9, 49152, True, 0),
    "smollm2-360m-instruct": (960, 2560, 15, 49152, True, 0),
    "smollm2-1.7b-instruct": (2048, 8192, 32, 49152, True, 0),
    "tinyllama-1.1b-chat": (2048, 5632, 32, 32000, False, 0),
    "llama-3.2-1b-instruct": (2048, 8192, 32, 128256, True, 0),
    "llama-3.2-3b-instruct": (3072, 8192, 24, 128256, True, 0),
    "llama-3.1-8b-instruct": (4096, 14336, 32, 128256, False, 0),
    "qwen2.5-0.5b-instruct": (896, 4864, 14, 151936, True, 14 * 64 + 2 * 2 * 64),
    "qwen2.5-1.5b-instruct": (1536, 8960, 12, 151936, True, 12 * 128 + 2 * 2 * 128),
    "qwen2.5-3b-instruct": (2048, 11008, 16, 151936, True, 16 * 128 + 2 * 2 * 128),
    "qwen2.5-7b-instruct": (3584, 18944, 28, 152064, False, 28 * 128 + 2 * 4 * 128),
    "qwen3-0.6b": (1024, 3072, 16, 151936, True, 2 * 128),
    "qwen3-1.7b": (2048, 6144, 16, 151936, True, 2 * 128),
    "qwen3-4b": (2560, 9728, 32, 151936, True, 2 * 128),
    "qwen3-8b": (4096, 12288, 32, 151936, False, 2 * 128),
    "mistral-7b-instruct-v0.3": (4096, 14336, 32, 32768, False, 0),
    "open-llama-3b-v2": (3200, 8640, 32, 32000, False, 0),
    "long-llama-3b-v1.1": (3200, 8640, 32, 32000, False, 0),
    "long-llama-3b-instruct": (3200, 8640, 32, 32000, False, 0),
    "codellama-7b-instruct": (4096, 11008, 32, 32016, False, 0),
    "long-llama-code-7b": (4096, 11008, 32, 32016, False, 0),
}


@pytest.mark.parametrize("entry", MODEL_TABLE, ids=lambda entry: entry.name)
def test_sizes_follow_from_the_shapes(entry):
    hidden, inner, heads, vocabulary, tied, extra = SHAPES[entry.name]
    queries, keys = heads * entry.head_dim, entry.kv_heads * entry.head_dim
    layer = hidden * (2 * queries + 2 * keys) + 3 * hidden * inner + 2 * hidden + extra
    parameters = entry.layers * layer + (1 if tied else 2) * vocabulary * hidden + hidden
    assert entry.bf16_bytes == 2 * parameters
    assert entry.parameters_billion == round(parameters / 1e9, 3)
    assert all(layer < entry.layers for layer in entry.memory_layers)


def test_table_is_in_order():
    assert set(SHAPES) == {entry.name for entry in MODEL_TABLE}
    sizes = [entry.bf16_bytes for entry in MODEL_TABLE]
    assert sizes == sorted(sizes)
    assert len({entry.repo for entry in MODEL_TABLE}) == len(MODEL_TABLE)
    assert {entry.name: entry.repo for entry in MODEL_TABLE}[DEFAULT_MODEL] == _HUB_REPO


def test_memory_for_each_token():
    by_name = {entry.name: entry for entry in MODEL_TABLE}
    assert by_name["smollm2-135m-instruct"].memory_bytes_per_token() == 7 * 2 * 3 * 64 * 2
    assert by_name["smollm2-135m-instruct"].memory_bytes_per_token(memory_layers=3) == 2304
    assert by_name["long-llama-3b-v1.1"].memory_bytes_per_token() == 38400
    assert by_name["codellama-7b-instruct"].memory_bytes_per_token(32) == 512 * 1024
    for entry in MODEL_TABLE:
        layers = len(entry.memory_layers or fetching_layers(entry.layers))
        assert entry.memory_bytes_per_token() == entry.memory_bytes_per_token(layers)


def test_what_suits_a_machine():
    default = MODEL_TABLE[0]
    assert default.name == DEFAULT_MODEL
    assert suitable(0) == ()
    assert suitable(default.bf16_bytes + WORKING_BYTES) == (default,)
    assert suitable(10**12) == MODEL_TABLE
    on_disk, in_ram = suitable(24 * 10**9), suitable(24 * 10**9, tokens=100_000)
    assert set(in_ram) < set(on_disk)
    assert "codellama-7b-instruct" in {entry.name for entry in on_disk}
    assert "codellama-7b-instruct" not in {entry.name for entry in in_ram}
    assert "llama-3.1-8b-instruct" in {entry.name for entry in suitable(24 * 2**30, tokens=100_000)}


def test_imports_only_the_standard_library():
    """By itself, that is: what `import longfocus` brings along is not this module's business."""
    code = (
        "import runpy, sys; before = set(sys.modules); runpy.run_path(sys.argv[1])\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; print(new - sys.stdlib_module_names)"
    )
    path = importlib.util.find_spec("longfocus.loading.catalogue").origin
    assert subprocess.check_output([sys.executable, "-c", code, path], text=True) == "set()\n"
