"""Devices: by name, by their figures, as they were measured and kept."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.errors import RequestError
from longfocus.planning.measure import measure
from longfocus.planning.rates import DEVICES, Rates, parse_bytes, parse_device, read_rates, write_rates


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 8 << 30),
        ("24GB", 24 * 10**9),
        ("1.5 GiB", 3 << 29),
        ("500M", 500 * 10**6),
        ("77", 77),
        ("2TiB", 2 << 40),
    ],
)
def test_amounts_of_memory(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "much", "8 GiBs", "-3GB", "0", "8XB"])
def test_what_is_no_amount(text):
    with pytest.raises(RequestError, match="write it as 8GiB"):
        parse_bytes(text)


def test_devices_by_name():
    for name, device in DEVICES.items():
        assert parse_device(name.upper()) == device
    assert parse_device("h100:94GiB").memory == 94 << 30
    assert parse_device("cpu:8GiB").rates == DEVICES["cpu"].rates


def test_a_device_by_its_figures():
    device = parse_device("cuda:650TFLOPS,3.35TB/s,80GiB")
    assert (device.kind, device.memory, device.origin) == ("cuda", 80 << 30, "as given")
    assert device.dtype == "bfloat16"
    rates = device.rates_of("bfloat16")
    assert (rates.products, rates.weights) == (650e12, 3.35e12)
    assert parse_device("cpu:500GFLOPS,20GB/s").memory is None
    with pytest.raises(RequestError, match="no rates of"):
        device.rates_of("float16")


@pytest.mark.parametrize("text", ["tpu", "cuda", "cuda:fast", "cuda:650TFLOPS", "h100:1GiB,2GiB", "cpu:3GB/s,4TFLOPS"])
def test_what_is_no_device(text):
    with pytest.raises(RequestError, match=r"no device|no amount"):
        parse_device(text)


def test_what_was_measured_is_kept(tmp_path, one_thread):
    """With small sizes: the figures are of no use, but they are figures."""
    told = []
    device = measure("cpu", scale=16, say=told.append)
    assert device.rates.keys() == {"bfloat16", "float32"}
    assert len(told) == 2
    path = tmp_path / "deeper" / "rates.json"
    assert read_rates(path) is None
    write_rates(path, device)
    assert read_rates(path) == device
    assert [file.name for file in path.parent.iterdir()] == ["rates.json"]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rates") / "rates.json"


NAMES = st.sampled_from(["format", "name", "kind", "rates", "bfloat16", "products"])
VALUES = st.none() | st.integers() | st.floats() | st.text()


@settings(max_examples=40, deadline=None)
@given(found=st.recursive(VALUES, lambda inner: st.dictionaries(NAMES, inner)))
def test_a_damaged_file_is_told_in_one_line(damaged, found):
    damaged.write_text(json.dumps(found))
    with pytest.raises(RequestError, match="--measure` writes it anew"):
        read_rates(damaged)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "fast", True, None])
def test_rates_are_positive_numbers(tmp_path, value):
    path = tmp_path / "rates.json"
    write_rates(path, DEVICES["cpu"])
    assert isinstance(read_rates(path).rates["bfloat16"], Rates)
    found = json.loads(path.read_text())
    found["rates"]["float32"]["disk"] = value
    path.write_text(json.dumps(found))
    with pytest.raises(RequestError, match="is damaged"):
        read_rates(path)
