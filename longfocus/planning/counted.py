"""Bytes that a job takes, part by part: for reading, asking, and attending in full.

What is counted is counted from shapes. A few constants stand for what cannot be: libraries, a tokenizer's tables, the
text beside its tokens. They were fitted to peaks of resident memory on Linux (`benchmarks/plan.py`). Symbols in
comments: L layers, E hidden size, I width of the MLP, G key heads, D head_dim, V vocabulary, W window, b bytes of a
number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from longfocus.planning.rates import Device
from longfocus.planning.shapes import Shape
from longfocus.planning.ways import RETRIEVAL, Way
from longfocus.planning.work import entry_bytes

LIBRARIES = 425_000_000
"""A process that has imported torch, transformers and what reading and asking need."""
GENERATION = 60_000_000
"""What is imported besides when the first answer is written."""
CUDA_CONTEXT = 600_000_000
"""What a process takes of a GPU before anything is on it."""
TOKENIZER_ROW = 900
"""Bytes of a tokenizer's tables for each token of the vocabulary."""
TEXT_TOKEN = 500
"""Bytes for each token of a document while it is turned into tokens: its text, the tokens, and where they stand."""
BOOK_TOKEN = 20
"""Bytes of each token's number and place in a Book's file: 4 + 2 x 8."""
LETTERS = 4.5
"""Bytes of text for each token, as English prose has it."""
PASSES_HELD = 4, 16
"""Of a layer's pointwise parts, how many numbers of the MLP's width and of the state's exist at once for a token."""


@dataclass(frozen=True)
class Bytes:
    """Bytes at the most, by part.

    Attributes:
        libraries: What is there before the model is.
        weights: The model's.
        text: The document and its tokens.
        window: Keys and values in the window, in all the copies that exist at once.
        memory: Entries of memory, or keys and values of full attention.
        activations: What layers make on the way; in training what is kept for gradients.
        logits: Of the places that have any.
        gradients: One for each weight that learns.
        optimizer: The optimizer's states.
        mapped: Files that are mapped: resident where they were read, until the system wants the room.
        disk: In files; not in memory.
    """

    libraries: int = 0
    weights: int = 0
    text: int = 0
    window: int = 0
    memory: int = 0
    activations: int = 0
    logits: int = 0
    gradients: int = 0
    optimizer: int = 0
    mapped: int = 0
    disk: int = 0

    @property
    def total(self) -> int:
        """What has to be in memory: all but what is mapped."""
        return sum(value for name, value in self.parts() if name != "mapped")

    @property
    def resident(self) -> int:
        """What is in memory at the most, where there is room for it."""
        return self.total + self.mapped

    def parts(self) -> list[tuple[str, int]]:
        """What is in memory, by name."""
        return [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "disk"]


def libraries(shape: Shape, device: Device) -> int:
    """What a process takes before there is a model; on a GPU, of the GPU's memory."""
    return CUDA_CONTEXT if device.kind == "cuda" else LIBRARIES + TOKENIZER_ROW * shape.vocabulary


def weights(shape: Shape, item_bytes: int) -> int:
    """P x b."""
    return shape.parameters * item_bytes


PACKED_ITEM = {"int4": 0.625, "int8": 1.25}
"""Bytes of a packed number, with its share of a group's step and offset, by the way to pack."""


def packed_weights(shape: Shape, quantize: str) -> int:
    """Packed matrices of the layers, and the head's in 8 bits, which a model that writes has besides its weights."""
    if quantize not in PACKED_ITEM:
        return 0
    return int(PACKED_ITEM[quantize] * shape.layers * shape.layer_weights + PACKED_ITEM["int8"] * shape.head_weights)


def kept_keys(shape: Shape, layers: int, tokens: int, item_bytes: int) -> int:
    """Keys and values of `tokens` tokens in `layers` layers: 2 x L x G x D x b for each."""
    return 2 * layers * shape.key_width * item_bytes * tokens


def passing(shape: Shape, tokens: int, item_bytes: int) -> int:
    """What a layer's pointwise parts hold at once, for `tokens` tokens."""
    wide, narrow = PASSES_HELD
    return (wide * shape.wide + narrow * shape.hidden) * item_bytes * tokens


def book_disk(shape: Shape, way: Way, tokens: int, item_bytes: int) -> int:
    """A Book's folder when it is read to its end: entries, the last window of all layers, tokens and text."""
    entries = way.entries(tokens) * entry_bytes(shape, way)
    window = kept_keys(shape, shape.layers, min(tokens, way.staying), item_bytes)
    return entries + window + int(tokens * (BOOK_TOKEN + LETTERS))


def reading_disk(shape: Shape, way: Way, tokens: int, item_bytes: int) -> int:
    """The most that reading needs of the disk: the Book, a second window while it is replaced, and what waits for the
    upper layers.
    """
    late = min(way.late_tokens(shape), tokens) * shape.hidden * item_bytes
    window = kept_keys(shape, shape.layers, min(tokens, way.staying), item_bytes)
    return book_disk(shape, way, tokens, item_bytes) + window + late


def reading(shape: Shape, way: Way, tokens: int, device: Device, item_bytes: int) -> Bytes:
    """Reading a document into a Book.

    A window's keys exist plain and rotated, beside its values and the states before and after it: 3 W + 4 x staying
    in each layer that runs. Writing what stays takes three copies of it.
    """
    lower = way.lower_layers(shape)
    in_window, staying = min(way.window, tokens), min(way.staying, tokens)
    each = lower * shape.key_width * item_bytes
    late = min(way.late_tokens(shape), tokens) * shape.hidden * item_bytes
    entries = way.entries(tokens)
    held = entries if way.look_back is None else min(way.look_back, entries)
    grown = 1.5 if way.look_back is None else 1.0  # it grows by half, and for a moment both are there
    return Bytes(
        libraries=libraries(shape, device),
        weights=weights(shape, item_bytes),
        text=0 if device.kind == "cuda" else TEXT_TOKEN * tokens,
        window=each * (3 * in_window + 4 * staying + 3 * 2 * staying),
        memory=int(grown * held * entry_bytes(shape, way)),
        activations=passing(shape, min(way.stride, tokens), item_bytes) + late,
        disk=reading_disk(shape, way, tokens, item_bytes),
    )


def asking(
    shape: Shape,
    way: Way,
    tokens: int,
    question: int,
    answer: int,
    device: Device,
    item_bytes: int,
    at_once: int = 1,
) -> Bytes:
    """Asking a Book, or a window of its end, or a window of passages; `at_once` questions together.

    A Book's entries are mapped: what attention reads of them is resident, and a system that is short of memory may let
    go of it.
    """
    put = question + way.looked_up
    before = way.staying if way.memory_layers else 0 if way.name == RETRIEVAL else max(way.window - put, 0)
    before = min(before, tokens)
    entries = way.entries(tokens)
    return Bytes(
        libraries=libraries(shape, device) + (0 if device.kind == "cuda" else GENERATION),
        weights=weights(shape, item_bytes),
        text=0 if device.kind == "cuda" else int((24 + BOOK_TOKEN + LETTERS) * tokens),
        window=3 * at_once * kept_keys(shape, shape.layers, before + put + answer, item_bytes) // 2,
        mapped=entries * entry_bytes(shape, way),
        activations=at_once * passing(shape, put, item_bytes),
        logits=at_once * shape.vocabulary * (item_bytes + 2 * 4),
        disk=book_disk(shape, way, tokens, item_bytes) if way.memory_layers else int(tokens * LETTERS),
    )


def attending_in_full(shape: Shape, tokens: int, answer: int, device: Device, item_bytes: int) -> Bytes:
    """Transformers' own model over a whole document: keys and values of all layers, and one layer's activations."""
    return Bytes(
        libraries=libraries(shape, device),
        weights=weights(shape, item_bytes),
        text=0 if device.kind == "cuda" else TEXT_TOKEN * tokens,
        memory=kept_keys(shape, shape.layers, tokens + answer, item_bytes),
        activations=passing(shape, tokens, item_bytes),
        logits=shape.vocabulary * (item_bytes + 2 * 4),
    )


def stock_scores(heads: int, tokens: int, item_bytes: int = 2) -> int:
    """Scores of one layer's attention of the plain sort, one for each head and pair of tokens.

    For 32 heads and 100,000 tokens in bfloat16 640 GB, which are 596 GiB: the "596 GB" of Anima 100K (lyogavin, 2023).
    """
    return heads * tokens * tokens * item_bytes


def blocks_of_scores(heads: int, tokens: int, block: int = 128, item_bytes: int = 2) -> int:
    """The same for blocks of `block` keys: 781 MiB, its "782 MB". Flash attention has these on the chip only."""
    return heads * tokens * block * item_bytes


def flash_keeps(heads: int, tokens: int) -> int:
    """What flash attention keeps besides its output: a float32 for each head and token (Dao et al., 2022)."""
    return heads * tokens * 4
