"""How much there is to compute: operations of products and of attention, bytes that are moved.

A product of a token with a weight counts as two operations (a multiplication and a sum); a query with a key, and the
value that it brings, as four for each number of a head. Backward passes cost twice their forward pass, and computing a
layer anew once more (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from longfocus.planning.shapes import Shape
from longfocus.planning.ways import Way

BACKWARD, ANEW = 2, 1
"""What a backward pass, and computing a layer anew for it, cost beside the forward pass."""


@dataclass(frozen=True)
class Work:
    """What one job computes.

    Attributes:
        products: Operations of products with weights.
        attention: Operations of attention.
        pointwise: Numbers that norms, rotations and activations read or write.
        written: Bytes that go to files.
        calls: Layers called.
    """

    products: float = 0.0
    attention: float = 0.0
    pointwise: float = 0.0
    written: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.products + other.products,
            self.attention + other.attention,
            self.pointwise + other.pointwise,
            self.written + other.written,
            self.calls + other.calls,
        )

    def times(self, factor: float) -> Work:
        """The same so many times; files are written once."""
        return Work(
            self.products * factor,
            self.attention * factor,
            self.pointwise * factor,
            self.written,
            self.calls * factor,
        )


def layer_products(shape: Shape, tokens: float, layers: int) -> float:
    """Operations of `tokens` tokens' products with the weights of `layers` layers."""
    return 2.0 * shape.layer_weights * layers * tokens


def head_products(shape: Shape, places: float) -> float:
    """Operations of the logits of `places` places."""
    return 2.0 * shape.head_weights * places


def pair_operations(shape: Shape, pairs: float) -> float:
    """Operations of one layer's attention over so many pairs of a query and a key."""
    return 4.0 * shape.query_width * pairs


def passes(shape: Shape, tokens: float, layers: int) -> float:
    """Numbers that a layer's pointwise parts read or write for each token, times tokens and layers.

    Two norms and two sums over the state (10 of its width), the rotation of queries and keys (8 of theirs), the MLP's
    activation and its product (5 of its width), and joining two parts of attention (6 of the queries').
    """
    each = 10 * shape.hidden + 8 * (shape.query_width + shape.key_width) + 5 * shape.wide + 6 * shape.query_width
    return float(each) * tokens * layers


def causal_pairs(tokens: float) -> float:
    """Pairs of full attention: each token with all up to itself, N^2 / 2 as it is usually counted."""
    return tokens * tokens / 2


def windows(tokens: int, way: Way) -> Iterator[tuple[int, int]]:
    """New tokens of each window, and how many stood in it before."""
    done = 0
    while done < tokens:
        yield min(way.stride, tokens - done), min(done, way.staying)
        done += way.stride


def window_pairs(tokens: int, way: Way) -> float:
    """Pairs of a query and a key within windows, in one layer."""
    full, rest = divmod(tokens, way.stride)
    if full <= 2:
        return sum(new * (held + new / 2) for new, held in windows(tokens, way))
    first = way.stride * way.stride / 2 + way.stride * (min(way.stride, way.staying) + way.stride / 2)
    steady = (full - 2) * way.stride * (way.staying + way.stride / 2)
    return first + steady + rest * (way.staying + rest / 2)


def looked_at(tokens: int, way: Way) -> float:
    """Pairs of a query with an entry of memory while reading, in one memory layer."""
    if way.look_back == 0 or not way.memory_layers:
        return 0.0
    most = way.entries(tokens)
    if way.look_back is None or way.look_back >= most:
        return max(tokens - way.window, 0) ** 2 / 2
    rising = way.look_back * way.look_back / 2
    return rising + way.look_back * max(tokens - way.window - way.look_back, 0)


def reading(shape: Shape, way: Way, tokens: int, item_bytes: int) -> Work:
    """Reading a document into a Book: lower layers over all of it, the others over its end."""
    lower = way.lower_layers(shape)
    above, late = shape.layers - lower, min(way.late_tokens(shape), tokens)
    steps = -(-tokens // way.stride)
    work = Work(
        products=layer_products(shape, tokens, lower) + layer_products(shape, late, above),
        attention=pair_operations(
            shape,
            window_pairs(tokens, way) * lower
            + window_pairs(late, way) * above
            + looked_at(tokens, way) * len(way.memory_layers),
        ),
        pointwise=passes(shape, tokens, lower) + passes(shape, late, above),
        calls=float(steps * lower + -(-late // way.stride) * above),
    )
    kept = way.entries(tokens) * entry_bytes(shape, way)
    state = 2 * lower * way.staying * shape.key_width * item_bytes
    return work + Work(written=float(kept + steps * state + tokens * shape.hidden * item_bytes * bool(above)))


def entry_bytes(shape: Shape, way: Way) -> int:
    """Bytes that one token takes in all memory layers: 2 (key and value) x layers x key heads x head_dim x bytes.

    Packed numbers have a step for each head besides.
    """
    return 2 * len(way.memory_layers) * shape.key_heads * (shape.head_dim * way.entry_item + way.entry_step)


def prompt(shape: Shape, tokens: int, held: int, entries: int, way: Way) -> Work:
    """`tokens` new tokens behind `held` in the window and `entries` of memory; logits for the last of them."""
    within = tokens * (held + tokens / 2)
    return Work(
        products=layer_products(shape, tokens, shape.layers) + head_products(shape, 1),
        attention=pair_operations(shape, within * shape.layers + float(tokens) * entries * len(way.memory_layers)),
        pointwise=passes(shape, tokens, shape.layers),
        calls=float(shape.layers),
    )


def full_prefill(shape: Shape, tokens: int) -> Work:
    """Full attention over a document."""
    return Work(
        products=layer_products(shape, tokens, shape.layers) + head_products(shape, 1),
        attention=pair_operations(shape, causal_pairs(tokens) * shape.layers),
        pointwise=passes(shape, tokens, shape.layers),
        calls=float(shape.layers),
    )


def trained(forward: Work, *, anew: bool, whole: bool = True) -> Work:
    """A step of which `forward` is the forward pass, with its backward pass.

    Args:
        forward: The forward pass.
        anew: Whether layers are computed anew for their gradients.
        whole: Whether all weights learn. Frozen ones need no gradients of their own, which is half of a product's
            backward pass.
    """
    more = ANEW if anew else 0
    step = forward.times(1 + BACKWARD + more)
    return replace(step, products=forward.products * (1 + (BACKWARD if whole else BACKWARD / 2) + more))
