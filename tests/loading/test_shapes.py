"""Shapes are found without loading anything, and a model's way with memory is the one that loading sets up."""

import json

import pytest

from longfocus.loading import profiles, shapes
from longfocus.loading.cache import CACHE_VARIABLE
from longfocus.loading.load import load
from longfocus.loading.profiles import SHAPE
from longfocus.loading.shapes import find_shape, way_with_memory
from tests.conftest import write_tiny_model


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A machine that has no model yet."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def test_the_default_model_goes_as_its_adapter_was_trained(elsewhere):
    way = way_with_memory(find_shape(None))
    assert (way.memory_layers, way.window, way.staying, way.top_k) == ((9, 14, 15, 18), 1024, 512, None)
    narrow = way_with_memory(find_shape(None), window=768)
    assert (narrow.memory_layers, narrow.window, narrow.top_k) == ((9, 14, 15, 18), 768, None)


def test_without_its_adapter_it_goes_by_the_profile_of_its_shape(elsewhere):
    way = way_with_memory(find_shape(None), adapter=False)
    assert (way.memory_layers, way.window, way.staying, way.top_k) == ((9, 14, 15, 18), 1024, 512, 16)
    narrow = way_with_memory(find_shape(None), window=512, adapter=False)
    assert (narrow.memory_layers, narrow.window, narrow.staying) == ((9, 14, 15, 18), 512, 256)
    other = way_with_memory(find_shape(None), (5, 6))
    assert (other.memory_layers, other.staying, other.top_k) == ((5, 6), 512, 16)


@pytest.mark.parametrize("theta", [10_000.0, 50_000.0], ids=["of the profile", "of another generation"])
@pytest.mark.parametrize("how", [{}, {"window": 64}, {"mem_layers": [2]}], ids=str)
def test_a_way_is_the_one_that_loading_sets_up(theta, how, tmp_path, monkeypatch, elsewhere):
    """By a profile that came for the shape, where the rotations are those of the profile as well."""
    folder = write_tiny_model(tmp_path / "model", rope_theta=theta)
    shape = dict(zip(SHAPE, (4, 64, 96, 4, 2, 16, 400, 512), strict=True)) | {"rope_theta": 10_000.0}
    told = {"format": 1, "of": {"shape": shape}, "model": "tiny", "layers": 4, "memory_layers": [0, 3], "window": 128}
    (tmp_path / "tiny.json").write_text(json.dumps(told | {"overlap": 28, "sinks": 4, "top_k": 5, "found": []}))
    for module, name in ((profiles, "SHIPPED"), (shapes, "_PROFILES")):
        monkeypatch.setattr(module, name, tmp_path)
    profiles._shipped.cache_clear()
    try:
        loaded = load(folder, adapter=None, **how)
    finally:
        profiles._shipped.cache_clear()
    config = loaded.model.config
    way = way_with_memory(find_shape(folder), how.get("mem_layers"), how.get("window"))
    assert list(way.memory_layers) == list(config.mem_layers)
    assert (way.window, way.staying) == (config.window_length, config.window_overlap + config.sink_tokens)
    assert way.top_k == loaded.habits.top_k
    assert (way.top_k == 5) == (theta == 10_000.0)
