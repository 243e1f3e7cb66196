"""The sums by which others, and we, explain what length costs: each formula gives the figures that are told of it."""

from dataclasses import replace

import pytest

from longfocus.planning.counted import (
    attending_in_full,
    blocks_of_scores,
    flash_keeps,
    kept_keys,
    passing,
    stock_scores,
    weights,
)
from longfocus.planning.known_shapes import SHAPES
from longfocus.planning.rates import DEVICES, Rates
from longfocus.planning.times import floor_seconds
from longfocus.planning.training import Lesson, learning_weights, step_bytes
from longfocus.planning.ways import usual_way
from longfocus.planning.work import BACKWARD, Work, causal_pairs, layer_products, pair_operations, trained

GIB, MIB = 2**30, 2**20
LLAMA_7B, LLAMA_3B = SHAPES["llama-2-7b"], SHAPES["open-llama-3b-v2"]
LLAMA_8B, SMALL = SHAPES["llama-3.1-8b-instruct"], SHAPES["smollm2-135m-instruct"]
BOOK = 100_000


def rounded(value: float) -> float:
    """To two digits, as the figures are told."""
    return float(f"{value:.1e}")


def test_the_two_figures_of_anima():
    heads = LLAMA_7B.heads
    assert stock_scores(heads, BOOK) == 640_000_000_000
    assert round(stock_scores(heads, BOOK) / GIB, 2) == 596.05
    assert round(stock_scores(heads, BOOK, item_bytes=4) / GIB) == 1192
    assert blocks_of_scores(heads, BOOK) / MIB == 781.25
    assert blocks_of_scores(heads, BOOK) == LLAMA_7B.query_width * BOOK * 2, "as large as the output, by chance"
    assert flash_keeps(heads, BOOK) == 12_800_000
    assert blocks_of_scores(heads, BOOK) == 64 * flash_keeps(heads, BOOK)


@pytest.mark.parametrize(
    ("shape", "each", "book", "few", "few_book"),
    [
        (LLAMA_7B, 512 * 1024, 52.4e9, 48 * 1024, 4.9e9),
        (LLAMA_3B, 325 * 1024, 33.3e9, 37.5 * 1024, 3.8e9),
        (LLAMA_8B, 128 * 1024, 13.1e9, 12 * 1024, 1.2e9),
        (SMALL, 22.5 * 1024, 2.30e9, 2.25 * 1024, 0.23e9),
    ],
    ids=["7b", "3b", "8b", "135m"],
)
def test_keys_and_values(shape, each, book, few, few_book):
    """Of one token and of 100,000, in all layers and in three."""
    assert kept_keys(shape, shape.layers, 1, 2) == each
    assert kept_keys(shape, shape.layers, BOOK, 2) == pytest.approx(book, rel=0.01)
    assert kept_keys(shape, 3, 1, 2) == few
    assert kept_keys(shape, 3, BOOK, 2) == pytest.approx(few_book, rel=0.03)
    assert kept_keys(shape, 3, BOOK, 1) * 2 == kept_keys(shape, 3, BOOK, 2), "numbers of 8 bits halve it"


def test_keys_of_four_layers_of_the_default_model():
    assert kept_keys(SMALL, 4, 1, 2) == 3072
    assert kept_keys(SMALL, 7, 1, 2) == 5376


def focused(shape, tokens: int) -> Work:
    """Windows of 2,048 and three layers that look at everything: what was calculated for Focused Transformer."""
    windows = tokens * 1024 * shape.layers
    memory = 3 * causal_pairs(tokens - 2048)
    return Work(layer_products(shape, tokens, shape.layers), pair_operations(shape, windows + memory))


def full(shape, tokens: int) -> Work:
    return Work(
        layer_products(shape, tokens, shape.layers), pair_operations(shape, causal_pairs(tokens) * shape.layers)
    )


def took(work: Work, products: float, attention: float) -> float:
    return work.products / products + work.attention / attention


@pytest.mark.parametrize(
    ("shape", "linear", "whole", "some"),
    [
        (LLAMA_7B, 1.3e15, 2.6e15, 2.9e14),
        (LLAMA_3B, 6.4e14, 1.7e15, 2.2e14),
        (SMALL, 2.1e13, 3.5e14, 4.1e13),
    ],
    ids=["7b", "3b", "135m"],
)
def test_operations_of_reading(shape, linear, whole, some):
    assert rounded(full(shape, BOOK).products) == linear
    assert rounded(full(shape, BOOK).attention) == pytest.approx(whole, rel=0.03)
    assert focused(shape, BOOK).attention == pytest.approx(some, rel=0.03)


@pytest.mark.parametrize(
    ("rates", "shape", "whole", "some"),
    [
        ((650e12, 500e12), LLAMA_7B, 7.2, 2.6),
        ((650e12, 500e12), LLAMA_3B, 4.3, 1.4),
        ((650e12, 500e12), SMALL, 0.7, 0.1),
        ((169e9, 139e9), LLAMA_7B, 7.4 * 3600, 2.7 * 3600),
        ((169e9, 139e9), LLAMA_3B, 4.4 * 3600, 1.5 * 3600),
        ((169e9, 139e9), SMALL, 44 * 60, 7.0 * 60),
        ((405e9, 139e9), LLAMA_7B, 6.1 * 3600, 1.5 * 3600),
        ((405e9, 139e9), LLAMA_3B, 3.8 * 3600, 53 * 60),
        ((405e9, 139e9), SMALL, 42 * 60, 5.8 * 60),
    ],
)
def test_seconds_of_reading(rates, shape, whole, some):
    assert took(full(shape, BOOK), *rates) == pytest.approx(whole, rel=0.05)
    assert took(focused(shape, BOOK), *rates) == pytest.approx(some, rel=0.16)  # told to one digit


@pytest.mark.parametrize(
    ("shape", "whole_days", "some_days"), [(LLAMA_7B, 23, 3), (LLAMA_3B, 14, 2), (SMALL, 69 / 24, 7.4 / 24)]
)
def test_seconds_of_a_million_tokens(shape, whole_days, some_days):
    assert took(full(shape, 10**6), 169e9, 139e9) / 86_400 == pytest.approx(whole_days, rel=0.05)
    assert took(focused(shape, 10**6), 169e9, 139e9) / 86_400 == pytest.approx(some_days, rel=0.15)


@pytest.mark.parametrize(
    ("shape", "stream", "whole", "some", "none"),
    [
        (LLAMA_7B, 3.35e12, 19.7e-3, 5.8e-3, 4.3e-3),
        (LLAMA_8B, 3.35e12, 8.7e-3, 5.2e-3, 4.9e-3),
        (LLAMA_3B, 3.35e12, 12.0e-3, 3.4e-3, 2.3e-3),
        (SMALL, 24e9, 107e-3, 23e-3, 13e-3),
        (LLAMA_7B, 24e9, 2.7, 0.81, 0.61),
    ],
    ids=["7b", "8b", "3b", "135m on a cpu", "7b on a cpu"],
)
def test_floors_of_writing(shape, stream, whole, some, none):
    """One token behind 100,000: everything in full attention, three layers and a window of 2,048, the window alone."""
    window = kept_keys(shape, shape.layers, 2048, 2)
    assert floor_seconds(shape, kept_keys(shape, shape.layers, BOOK, 2), stream, 2) == pytest.approx(whole, rel=0.02)
    assert floor_seconds(shape, window + kept_keys(shape, 3, BOOK, 2), stream, 2) == pytest.approx(some, rel=0.02)
    assert floor_seconds(shape, window, stream, 2) == pytest.approx(none, rel=0.04)


def test_logits_of_a_book():
    assert [shape.vocabulary * BOOK * 4 / 1e9 for shape in (LLAMA_7B, LLAMA_8B, SMALL)] == [
        12.8,
        pytest.approx(51.3, rel=1e-3),
        pytest.approx(19.7, rel=2e-3),
    ]


def test_states_of_the_optimizer():
    """Eight bits matter for whole models, not for adapters."""
    adapter = LLAMA_7B.adapter_weights(16, everywhere=True)
    assert adapter == pytest.approx(40.0e6, rel=1e-3)
    assert LLAMA_7B.parameters * 8 == pytest.approx(53.9e9, rel=1e-3)
    plain = Lesson("full-attention", 1, 1024, 16, labelled=1)
    small = Lesson("full-attention", 1, 1024, 16, labelled=1, eight_bit=True)
    way, device = usual_way(LLAMA_7B), DEVICES["h100"]
    assert learning_weights(LLAMA_7B, plain) == adapter
    assert step_bytes(LLAMA_7B, way, plain, device).optimizer == pytest.approx(320e6, rel=1e-3)
    assert step_bytes(LLAMA_7B, way, small, device).optimizer == pytest.approx(80e6, rel=1e-3)


def test_a_step_of_100_000_tokens_on_one_gpu():
    """What fills the memory after flash attention: 26.2 GB of layers' inputs, which can wait elsewhere."""
    lesson = Lesson("full-attention", 1, BOOK, 32, labelled=1024, anew=True, piece=2048)
    kept = step_bytes(LLAMA_7B, usual_way(LLAMA_7B), lesson, DEVICES["h100"])
    away = step_bytes(
        LLAMA_7B,
        usual_way(LLAMA_7B),
        Lesson("full-attention", 1, BOOK, 32, labelled=1024, anew=True, piece=2048, offload=True),
        DEVICES["h100"],
    )
    assert weights(LLAMA_7B, 2) == pytest.approx(13.5e9, rel=2e-3)
    assert kept.activations - away.activations == pytest.approx(26.2e9, rel=1e-3)
    assert kept.total == pytest.approx(53e9, rel=0.1)
    assert away.total < 30e9
    assert 4 * LLAMA_7B.wide * 2 * BOOK == pytest.approx(8.8e9, rel=2e-3)


def test_operations_of_a_step_of_100_000_tokens():
    """Forward, once more for the gradients, and backward: 40 seconds of one H100 at 400 TFLOP/s."""
    step = trained(full(LLAMA_7B, BOOK), anew=True)
    assert BACKWARD == 2
    assert step.products + step.attention == pytest.approx(1.5e16, rel=0.06)
    assert took(step, 400e12, 400e12) == pytest.approx(40, rel=0.03)
    assert trained(full(LLAMA_7B, BOOK), anew=False, whole=False).products == 2 * full(LLAMA_7B, BOOK).products


def test_full_attention_is_what_was_measured():
    """transformers' peaks of resident memory in docs/log.md."""
    for tokens, measured in ((4096, 1053), (8192, 1265), (16_384, 1600), (32_768, 2387)):
        planned = attending_in_full(SMALL, tokens, 0, DEVICES["cpu"], 2).resident / MIB
        assert planned == pytest.approx(measured, rel=0.15)
    assert passing(SMALL, 2, 2) == 2 * passing(SMALL, 1, 2)


def test_rates_of_two_cores_give_what_was_measured():
    """docs/log.md: tokens a second of reading and writing by Longfocus, and of reading by transformers."""
    from longfocus.planning.times import reading_seconds, token_seconds
    from longfocus.planning.ways import full_way, window_way

    rates: Rates = DEVICES["cpu"].rates["bfloat16"]
    way = replace(usual_way(SMALL, memory_layers=(9, 14, 15, 18)), top_k=None)  # as the default model goes
    for tokens, speed in ((4096, 2186), (8192, 2330), (16_384, 2672), (32_768, 3088), (102_400, 3224)):
        assert tokens / reading_seconds(SMALL, way, tokens, rates, 2) == pytest.approx(speed, rel=0.2)
    for tokens, speed in ((4096, 1798), (8192, 1371), (16_384, 819), (32_768, 462)):
        assert tokens / reading_seconds(SMALL, full_way(SMALL, tokens), tokens, rates, 2) == pytest.approx(
            speed, rel=0.2
        )
    assert 1 / token_seconds(SMALL, way, 88_681, rates, 2) == pytest.approx(16.3, rel=0.2)
    assert 1 / token_seconds(SMALL, window_way(way), 88_681, rates, 2) == pytest.approx(27.4, rel=0.2)
