"""What is counted, held to what the code does: a Book's files, autograd's saved tensors, defaults of loading."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.loading.defaults import LONGEST_WINDOW, SINK_TOKENS, UNTRAINED, training_free
from longfocus.memory.late import tokens_that_matter
from longfocus.memory.layout import TEXT, TOKENS, parse_manifest, parse_progress, window_file
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.planning import ways
from longfocus.planning.counted import BOOK_TOKEN, Bytes, book_disk, kept_keys, reading, reading_disk
from longfocus.planning.rates import REFERENCE
from longfocus.planning.shapes import Shape, shape_of
from longfocus.planning.training import Lesson, kept_beside, kept_of_layer, learning_weights
from longfocus.planning.ways import usual_way, way_of
from longfocus.planning.work import entry_bytes, looked_at, window_pairs, windows
from longfocus.training.crossbatch import CrossBatch
from longfocus.training.fot import FotLesson, Growth
from longfocus.training.lessons import ATTENTION_PROJECTIONS, with_lora

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, LENGTH = 4, 64


def test_a_book_has_the_bytes_that_were_planned(tiny_book_folder, tiny_model):
    manifest = parse_manifest(tiny_book_folder)
    progress = parse_progress(tiny_book_folder, manifest)
    fields = tiny_model.model.config.to_dict()
    shape = shape_of(fields)
    way = way_of(shape, fields, {"look_back": 0, "top_k": 16})
    assert manifest.reading.dtype == "bfloat16"
    item = tiny_model.model.dtype.itemsize  # of the window; memory keeps its own type
    assert way.entries(manifest.tokens) == progress.entries
    assert way.lower_layers(shape) == manifest.reading.lower
    sizes = {file.name: file.stat().st_size for file in tiny_book_folder.iterdir()}
    entries = sum(size for name, size in sizes.items() if name.startswith("layer-"))
    assert entries == progress.entries * entry_bytes(shape, way)
    kept = kept_keys(shape, shape.layers, way.staying, item)
    assert sizes[window_file(progress.step)] == pytest.approx(kept, abs=1000)  # and a header
    assert sizes[TOKENS] == pytest.approx(BOOK_TOKEN * manifest.tokens, abs=500)
    planned = book_disk(shape, way, manifest.tokens, item)
    assert planned == pytest.approx(sum(sizes.values()) - sizes[TEXT] + 4.5 * manifest.tokens, rel=0.05)
    assert reading_disk(shape, way, manifest.tokens, item) > planned


def made(layers: int, context: int) -> LongLlamaConfig:
    return LongLlamaConfig(
        num_hidden_layers=layers, hidden_size=8, intermediate_size=8, num_attention_heads=2, vocab_size=9,
        max_position_embeddings=context,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(layers=st.integers(1, 90), context=st.integers(8, 5000), window=st.none() | st.integers(2, 5000))
def test_usual_ways_are_those_of_loading(layers, context, window):
    config = made(layers, context)
    if window is not None and window > context:
        window = context
    fields = training_free(config, window)
    way = usual_way(shape_of(config.to_dict()), window=window)
    assert list(way.memory_layers) == fields["mem_layers"]
    assert way.window == fields["window_length"]
    assert way.staying == fields["window_overlap"] + fields["sink_tokens"]
    assert way.look_back == UNTRAINED.look_back
    ours = LongLlamaConfig(**{**{name: getattr(config, name) for name in SIZES}, **fields})
    assert way.stride == ours.stride
    shape = shape_of(ours.to_dict())
    above = shape.layers - way.lower_layers(shape)
    more = way.late_tokens(shape) - tokens_that_matter(ours)
    assert way.late_tokens(shape) == 0 if not above else 0 <= more <= above * SINK_TOKENS


SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


def test_habits_are_those_of_loading():
    assert ways.LONGEST_WINDOW == LONGEST_WINDOW
    assert (UNTRAINED.top_k, UNTRAINED.look_up) == (ways.TOP_K, ways.LOOK_UP)


def counted_pairs(tokens: int, way: ways.Way) -> float:
    """Pairs within windows, window by window."""
    return sum(new * (held + new / 2) for new, held in windows(tokens, way))


@settings(max_examples=100, deadline=None)
@given(tokens=st.integers(1, 5000), window=st.integers(2, 600), look_back=st.none() | st.integers(0, 5000))
def test_pairs_in_closed_form(tokens, window, look_back):
    shape = Shape(4, 8, 8, 2, 1, 4, 9, 8192)
    way = usual_way(shape, window=window)
    assert window_pairs(tokens, way) == pytest.approx(counted_pairs(tokens, way))
    way = ways.replace(way, look_back=look_back)
    assert 0 <= looked_at(tokens, way) <= tokens * tokens / 2
    assert looked_at(tokens, way) <= looked_at(tokens + 1, way)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 10**6), window=st.sampled_from([64, 256, 1024]), look_back=st.none() | st.integers(0, 9999)
)
def test_longer_documents_take_no_less(tokens, window, look_back):
    shape = Shape(30, 576, 1536, 9, 3, 64, 49_152, 8192)
    way = ways.replace(usual_way(shape, window=window), look_back=look_back)
    one, two = (reading(shape, way, length, REFERENCE, 2) for length in (tokens, 2 * tokens))
    assert one.total <= two.total
    assert one.disk < two.disk
    assert one.resident == sum(value for _, value in one.parts())
    assert Bytes(weights=3, mapped=4, disk=5).total == 3


def saved_bytes(rank: int, memory_layers: list[int]) -> float:
    """Bytes that autograd keeps in all layers of a small model for a cross-batch step."""
    torch.manual_seed(0)
    config = LongLlamaConfig(
        vocab_size=50, hidden_size=96, intermediate_size=128, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, mem_layers=memory_layers, window_length=LENGTH,
        last_context_length=LENGTH, tie_word_embeddings=True,
    )  # fmt: skip
    student = LongLlamaForCausalLM(config)
    if rank:
        student = with_lora(student.bfloat16().requires_grad_(False), rank, ATTENTION_PROJECTIONS)
    lesson = FotLesson(student, lambda seen: CrossBatch(seen, packing=4), Growth.of("3")).train()
    weights = {weight.untyped_storage().data_ptr() for weight in lesson.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        is_state = tensor.dim() > 2 or tensor.shape[:1] == (ROWS * LENGTH,)  # no weight cast to bfloat16, no table
        if storage.data_ptr() not in weights and is_state and tensor.shape[-1] != config.vocab_size:
            kept[storage.data_ptr()] = storage  # held, or else its place would be taken
        return tensor

    ids = torch.randint(3, 50, (ROWS, LENGTH))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        lesson(ids, ids)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "adapter"])
def test_what_is_kept_for_gradients(rank):
    """Counted in the shape's own numbers, against what autograd saves."""
    shape = Shape(3, 96, 128, 6, 2, 16, 50, 2048, tied=True)
    plain, with_memory = saved_bytes(rank, []), saved_bytes(rank, [1])
    tokens = ROWS * LENGTH
    assert plain / tokens == pytest.approx(shape.layers * kept_of_layer(shape, rank), rel=0.12)
    beside = ROWS * kept_beside(shape, LENGTH, 3 * LENGTH)
    assert with_memory - plain == pytest.approx(beside, rel=0.25)


@pytest.mark.parametrize("first", [0, 2])
def test_adapters_have_the_weights_that_were_planned(first):
    config = made(3, 64)
    shape = shape_of(config.to_dict())
    student = with_lora(LongLlamaForCausalLM(config), 4, ATTENTION_PROJECTIONS, first)
    lesson = Lesson("recall", 1, 64, 4, first)
    assert learning_weights(shape, lesson) == sum(
        weight.numel() for weight in student.parameters() if weight.requires_grad
    )
