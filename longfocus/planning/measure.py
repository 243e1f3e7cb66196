"""Measuring a device's rates, in some ten seconds. The only part of planning that needs torch.

Shapes are those of a small model's layer. Weights and activations are so many that no cache holds them from one call to
the next, as in a model; what a kernel reaches on the same few matrices again and again is half as much more. Each
measurement is the median of several.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from longfocus.planning.rates import Device, Rates

if TYPE_CHECKING:
    import torch

ROWS, HIDDEN, WIDE = 512, 576, 1536
HEADS, KEY_HEADS, HEAD_DIM = 9, 3, 64
KEYS = 1024
LAYERS = 24
"""So many sets of weights, that they do not stay in a cache between one token and the next."""
ENTRIES = 50_000


def measure(kind: str, scale: int = 1, say: Callable[[str], None] = lambda _: None) -> Device:
    """Measure the device of that kind, "cpu" or "cuda", in bfloat16 and float32.

    Args:
        kind: Which device.
        scale: Divides the sizes, for a quick try.
        say: Told what is measured.
    """
    import torch

    device = torch.device(kind)
    name = torch.cuda.get_device_name() if kind == "cuda" else f"{torch.get_num_threads()} threads of this CPU"
    rates = {}
    with torch.inference_mode():
        disk = _disk(32_000_000 // scale)
        for dtype in (torch.bfloat16, torch.float32):
            named = str(dtype).removeprefix("torch.")
            say(f"measuring {name} in {named}")
            rates[named] = _rates(device, dtype, scale, disk)
    memory = torch.cuda.get_device_properties(0).total_memory if kind == "cuda" else None
    return Device(name, kind, rates, memory)


def _rates(device: torch.device, dtype: torch.dtype, scale: int, disk: float) -> Rates:
    import torch
    import torch.nn.functional as F

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype)

    patience = 0.5 / scale
    rows, keys, entries = ROWS // scale, KEYS // scale, ENTRIES // scale
    layers = range(max(LAYERS // scale, 1))
    tables = [(made(WIDE, HIDDEN), made(HIDDEN, WIDE)) for _ in layers]
    through = [(made(rows, HIDDEN), made(rows, WIDE)) for _ in layers]

    def multiplied() -> Any:
        return [
            (F.linear(narrow, up), F.linear(wide, down))
            for (narrow, wide), (up, down) in zip(through, tables, strict=True)
        ]

    products = len(tables) * 2 * 2 * rows * HIDDEN * WIDE / _usual(multiplied, device, patience)

    query, key = made(1, HEADS, keys, HEAD_DIM), made(1, HEADS, keys, HEAD_DIM)
    pairs = keys * keys / 2
    attended = _usual(lambda: F.scaled_dot_product_attention(query, key, key, is_causal=True), device, patience)
    attention = 4 * HEADS * HEAD_DIM * pairs / attended

    norm = made(HIDDEN)

    def pointwise() -> Any:
        return [(F.rms_norm(narrow, (HIDDEN,), norm) + narrow, F.silu(wide) * wide) for narrow, wide in through]

    # as `work.passes` counts: a norm and a sum 5 of the state's width, the activation and its product 5 of the MLP's
    moved = len(through) * (5 * HIDDEN + 5 * WIDE) * rows * dtype.itemsize / _usual(pointwise, device, patience)

    one, one_wide = made(1, HIDDEN), made(1, WIDE)
    alone = _usual(lambda: [(F.linear(one, a), F.linear(one_wide, b)) for a, b in tables], device, patience)
    read = len(tables) * 2 * WIDE * HIDDEN * dtype.itemsize / alone

    memory = made(1, KEY_HEADS, entries, HEAD_DIM)
    values = memory.clone()
    asked = made(1, KEY_HEADS, HEADS // KEY_HEADS, HEAD_DIM)
    looked = _usual(lambda: F.scaled_dot_product_attention(asked, memory, values), device, patience)
    entry_rate = 2 * memory.nbytes / looked

    tiny = made(1, HIDDEN)
    called = _usual(lambda: [tiny + tiny for _ in range(_CALLS)], device, patience)
    return Rates(products, attention, moved, read, entry_rate, called, disk)


_CALLS = 450
"""So many small operators take as long as a layer's own and the Python around them (fitted to writing speed)."""


def _disk(count: int) -> float:
    """Bytes a second into a file in the folder for temporary files, through the system's cache and a checksum."""
    import zlib

    block = os.urandom(1 << 20)

    def write() -> None:
        with tempfile.TemporaryFile() as file:
            for _ in range(max(count >> 20, 1)):
                zlib.crc32(block)
                file.write(block)

    best = min(_timed(write) for _ in range(3))
    return max(count >> 20, 1) * len(block) / best


def _usual(work: Callable[[], Any], device: torch.device, patience: float) -> float:
    """Seconds of one call: the median of several, over `patience` seconds or a little more."""
    work()
    return statistics.median(_times(work, device, patience))


def _times(work: Callable[[], Any], device: torch.device, patience: float) -> Iterator[float]:
    import torch

    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    until = time.perf_counter() + patience
    count = 0
    while count < 3 or (time.perf_counter() < until and count < 200):
        count += 1
        yield max(_timed(whole), 1e-9)


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
