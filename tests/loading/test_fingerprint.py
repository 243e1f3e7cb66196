"""The cache of hashes: quick when nothing changed, never wrong when something did."""

import json
import os
import time

import pytest

from longfocus.loading import fingerprint as module
from longfocus.loading.cache import sha256_of
from longfocus.loading.fingerprint import HASHES, fingerprint, known_sha256
from longfocus.model.config import LongLlamaConfig


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """The paths that were read through, with a cache of the test's own."""
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    read = []
    monkeypatch.setattr(module, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    return read


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"some weights")
    return path


@pytest.fixture
def settled(monkeypatch):
    """As if every file had been there for a while."""
    later = time.time() + 60
    monkeypatch.setattr(module.time, "time", lambda: later)


def say(_):
    raise AssertionError("nothing here takes long")


def test_a_file_is_read_once(file, reads, settled):
    assert known_sha256(file, say) == known_sha256(file, say) == sha256_of(file)
    assert len(reads) == 1


def test_a_fresh_file_is_not_believed(file, reads):
    known_sha256(file, say)
    file.write_bytes(b"same length!")
    assert known_sha256(file, say) == sha256_of(file)
    assert len(reads) == 2


def test_a_file_with_its_time_set_back_is_read_again(file, reads, settled):
    before = file.stat()
    known_sha256(file, say)
    time.sleep(0.02)
    file.write_bytes(b"same length!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known_sha256(file, say) == sha256_of(file)
    assert len(reads) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_cache_costs_time_only(file, reads, settled, tmp_path, content):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / HASHES).write_text(content)
    assert known_sha256(file, say) == known_sha256(file, say) == sha256_of(file)
    assert len(reads) == 1


def test_a_cache_that_cannot_be_written_costs_time_only(file, reads, settled, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert known_sha256(file, say) == known_sha256(file, say) == sha256_of(file)
    assert len(reads) == 2


def test_files_that_are_gone_are_forgotten(file, reads, settled, tmp_path):
    known_sha256(file, say)
    file.unlink()
    other = tmp_path / "other"
    other.write_bytes(b"x")
    known_sha256(other, say)
    assert list(json.loads((tmp_path / "cache" / HASHES).read_text())) == [str(other)]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [HASHES]


def test_long_reads_are_announced(file, reads, monkeypatch):
    monkeypatch.setattr(module, "_TELL_FROM_BYTES", 5)
    said = []
    known_sha256(file, said.append)
    assert said == ["Reading weights to know it again (0.0 GB, once)."]


def test_what_a_fingerprint_depends_on(file, reads, tmp_path):
    vocabulary = tmp_path / "tokenizer.json"
    vocabulary.write_text("{}")

    def of(**fields):
        return fingerprint([file], LongLlamaConfig(num_hidden_layers=4, **fields), [vocabulary], say)

    plain = of()
    assert of() == plain
    memory = {"mem_layers": [1], "window_length": 64, "window_overlap": 3, "last_context_length": 5}
    assert of(**memory, mem_dtype="float32", torch_attention=True, mem_attention_grouping=[1, 2]) == plain
    changes = [
        {"rms_norm_eps": 1e-5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1.5}},
        {"num_key_value_heads": 8},
        {"mem_positionals": False},
        {"qk_norm": True},
        {"hidden_act": "gelu"},
    ]
    seen = {plain, *(of(**change) for change in changes)}
    assert len(seen) == len(changes) + 1
    vocabulary.write_text("[]")
    assert of() not in seen
