"""How fast a device does the few things that reading, asking and training are made of.

Rates are what is reached, not what a data sheet promises. Those of this machine are measured by `longfocus plan
--measure` and kept in a small file; without it, those of a machine that was measured before stand in, and a plan says
so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from longfocus.errors import RequestError

RATES_FILE = "rates.json"
_FORMAT = 1
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of a number, by the name of its type."""


@dataclass(frozen=True)
class Rates:
    """Rates with numbers of one type.

    Attributes:
        products: Operations a second in products of matrices with many rows.
        attention: Operations a second in attention of many queries.
        pointwise: Bytes a second through norms, rotations and activations.
        weights: Bytes of weights a second where one token goes through the model, which reads each once.
        entries: Bytes of keys and values a second that one token's attention reads.
        call: Seconds that a layer takes to be called, whatever its size.
        disk: Bytes a second into files.
    """

    products: float
    attention: float
    pointwise: float
    weights: float
    entries: float
    call: float
    disk: float


@dataclass(frozen=True)
class Device:
    """What computes.

    Attributes:
        name: For people.
        kind: "cpu" or "cuda".
        rates: By type of number.
        memory: Its bytes; None where that is not known.
        origin: Where the rates come from.
    """

    name: str
    kind: str
    rates: Mapping[str, Rates]
    memory: int | None = None
    origin: str = "measured"

    @property
    def dtype(self) -> str:
        """The type of number that it computes fastest with."""
        return max(self.rates, key=lambda name: self.rates[name].products)

    def rates_of(self, dtype: str) -> Rates:
        """Its rates with numbers of that type.

        Raises:
            RequestError: They are not known.
        """
        if dtype not in self.rates:
            raise RequestError(f"no rates of {self.name} in {dtype}; there are {', '.join(self.rates)}")
        return self.rates[dtype]


def _gpu(products: float, attention: float, stream: float, call: float = 2e-5) -> dict[str, Rates]:
    """Rates of a GPU from three figures; what one token reads and what is pointwise go at the memory's rate."""
    full = Rates(products, attention, stream, stream, stream, call, 1e9)
    return {"bfloat16": full, "float32": Rates(products / 2, attention / 2, stream, stream, stream, call, 1e9)}


GIB = 1 << 30
REFERENCE = Device(
    "two cores of a Xeon with AMX",
    "cpu",
    {
        # docs/log.md: reading speed at 32,768 tokens with its shares, attention kernels by themselves; one token
        # through all linear layers in 35 ms; the memory of a novel read in 22 ms by one token
        "bfloat16": Rates(1.3e12, 5.7e11, 8.7e9, 7.7e9, 1.06e10, 1.4e-4, 7.7e8),
        "float32": Rates(1.69e11, 1.39e11, 8.7e9, 1.2e10, 9.6e9, 1.4e-4, 7.7e8),
    },
    origin="measured on another machine",
)
"""What stands in for a CPU that was not measured."""

DEVICES: dict[str, Device] = {
    "cpu": REFERENCE,
    "h100": Device("H100", "cuda", _gpu(6.5e14, 5.0e14, 3.35e12), 80 * GIB, "assumed"),
    "h200": Device("H200", "cuda", _gpu(6.5e14, 5.0e14, 4.8e12), 141 * GIB, "assumed"),
    "a100": Device("A100", "cuda", _gpu(2.2e14, 1.7e14, 1.9e12), 80 * GIB, "assumed"),
    "rtx4090": Device("RTX 4090", "cuda", _gpu(1.4e14, 1.2e14, 1.0e12), 24 * GIB, "assumed"),
}
"""Devices by name. Of GPUs two thirds of the data sheet's operations are assumed, and half of them for attention."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[KMGT]i?B?)?", re.IGNORECASE)
_OPERATIONS = re.compile(r"(\d+(?:\.\d+)?)\s*([GTP])FLOPS?(?:/s)?", re.IGNORECASE)
_STREAM = re.compile(r"(\d+(?:\.\d+)?)\s*([GT])B/s", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Bytes from the like of 8GiB, 24GB or 500M; a bare number is bytes.

    Raises:
        RequestError: It is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise RequestError(f"{text!r} is no amount of memory; write it as 8GiB, 24GB or 500MB")
    unit = (found[2] or "B").upper()
    base = 1024 if "I" in unit else 1000
    return int(float(found[1]) * base ** " KMGT".index(unit[0] if unit != "B" else " "))


def parse_device(text: str) -> Device:
    """A device by its name, or by what it does: one of `DEVICES`, with its memory if it is another (`h100:94GiB`), or
    the like of `cuda:650TFLOPS,3.35TB/s,80GiB`.

    Raises:
        RequestError: It is neither.
    """
    name, _, said = text.strip().partition(":")
    parts = [part for part in said.split(",") if part]
    if name.lower() in DEVICES and len(parts) <= 1:
        known = DEVICES[name.lower()]
        memory = parse_bytes(parts[0]) if parts else known.memory
        return Device(known.name, known.kind, known.rates, memory, known.origin)
    if name.lower() in ("cpu", "cuda") and len(parts) >= 2:
        operations, stream = (
            pattern.fullmatch(part) for pattern, part in zip((_OPERATIONS, _STREAM), parts, strict=False)
        )
        if operations and stream:
            done = float(operations[1]) * {"G": 1e9, "T": 1e12, "P": 1e15}[operations[2].upper()]
            read = float(stream[1]) * {"G": 1e9, "T": 1e12}[stream[2].upper()]
            rates = _gpu(done, 0.77 * done, read, 2e-5 if name.lower() == "cuda" else REFERENCE.rates["bfloat16"].call)
            return Device(text, name.lower(), rates, parse_bytes(parts[2]) if len(parts) > 2 else None, "as given")
    raise RequestError(
        f"no device {text!r}; wanted one of {', '.join(DEVICES)}, or its operations and bytes a second as in "
        "cuda:650TFLOPS,3.35TB/s,80GiB"
    )


def write_rates(path: Path, device: Device) -> None:
    """Keep what was measured."""
    found = {"format": _FORMAT, "name": device.name, "kind": device.kind}
    text = json.dumps({**found, "rates": {dtype: asdict(rates) for dtype, rates in device.rates.items()}}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(path)


def read_rates(path: Path) -> Device | None:
    """What `write_rates` kept; None where there is nothing.

    Raises:
        RequestError: The file is damaged.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise _damaged(path) from None
    try:
        names = {field.name for field in fields(Rates)}
        rates = {}
        for dtype, given in found["rates"].items():
            if found["format"] != _FORMAT or dtype not in ITEM_BYTES or given.keys() != names:
                raise _damaged(path)
            if not all(type(value) in (int, float) and 0 < value < 1e30 for value in given.values()):
                raise _damaged(path)
            rates[dtype] = Rates(**given)
        if not rates or found["kind"] not in ("cpu", "cuda"):
            raise _damaged(path)
        return Device(str(found["name"]), found["kind"], rates)
    except (KeyError, TypeError, AttributeError):
        raise _damaged(path) from None


def rates_or_reference(path: Path, kind: str = "cpu") -> tuple[Device, str]:
    """A device of this machine as it was measured, or what stands in for it; and what to tell of a damaged file.

    For a CPU the reference stands in. For another kind nothing does: it has no rates, and no time is told.
    """
    usual = REFERENCE if kind == "cpu" else Device(f"the device {kind}", kind, {}, origin="not measured")
    try:
        return read_rates(path) or usual, ""
    except RequestError as error:
        return usual, str(error)


def _damaged(path: Path) -> RequestError:
    return RequestError(f"{path} is damaged; `longfocus plan --measure` writes it anew")
