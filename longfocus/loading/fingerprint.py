"""What identifies a model to those who keep something that it computed.

A Book holds keys and values that one model computed; another model would read nonsense from them. The fingerprint
tells models apart by the bytes of their weights, by what in their configuration changes hidden states, and by their
vocabulary. It leaves out what a Book records by itself or what may change between readings: the numbers' type, which
layers have memory, windows.

Reading gigabytes at each start would be slow, so the hash of a file is kept in the cache and believed while the
file's size and times stay as they were.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from longfocus.loading.cache import cache_dir, sha256_of, write_json
from longfocus.model.config import LongLlamaConfig

HASHES = "hashes.json"
"""The file in the cache that keeps hashes of files: by path, the stamp and the hash."""

ARCHITECTURE = (
    "attention_bias",
    "attention_out_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",  # some kinds of rotary scaling depend on it
    "mem_positionals",  # a property of the training, unlike where memory is used
    "mlp_bias",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "qk_norm",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "vocab_size",
)
"""The fields of a configuration that change what a token's hidden state is."""

_SETTLED_SECONDS = 2.0
_TELL_FROM_BYTES = 2_000_000_000


def fingerprint(
    weights: Sequence[Path], config: LongLlamaConfig, vocabulary: Sequence[Path], say: Callable[[str], None]
) -> str:
    """Return the fingerprint, 64 hexadecimal digits, of the model of these files.

    It is the same for a copy of the folder under any name. `say` is told when reading the files takes long.
    """
    identity = {
        "weights": {path.name: known_sha256(path, say) for path in weights},
        "vocabulary": {path.name: known_sha256(path, say) for path in vocabulary},
        "architecture": {name: getattr(config, name) for name in ARCHITECTURE},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def known_sha256(path: Path, say: Callable[[str], None]) -> str:
    """Return the SHA-256 of a file in hexadecimal, reading the file only where the cache does not know it."""
    path = path.resolve()
    stamp = _stamp(path)
    kept = _kept().get(str(path))
    if isinstance(kept, list) and kept[:-1] == stamp:
        return str(kept[-1])
    if stamp[0] >= _TELL_FROM_BYTES:
        say(f"Reading {path.name} to know it again ({stamp[0] / 1e9:.1f} GB, once).")
    found = sha256_of(path)
    # A file that changed a moment ago could change again without its times showing it.
    if _stamp(path) == stamp and time.time() - max(stamp[1:]) / 1e9 > _SETTLED_SECONDS:
        _keep(path, [*stamp, found])
    return found


def _stamp(path: Path) -> list[int]:
    """Size and times; the second time changes with the file even where the first was set back."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _kept() -> dict[str, Any]:
    try:
        kept = json.loads((cache_dir() / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(path: Path, entry: list[Any]) -> None:
    """Write an entry; where two processes do so at once, one is lost and made again the next time."""
    kept = {name: value for name, value in _kept().items() if os.path.exists(name)} | {str(path): entry}
    with contextlib.suppress(OSError):  # a cache that cannot be written to costs time only
        write_json(cache_dir() / HASHES, kept)
