"""Layers as a user writes them, turned into their numbers."""

from longfocus.errors import RequestError


def layer_numbers(text: str | None) -> list[int] | None:
    """Layers written as `8,12,16` or `5-24`.

    Raises:
        RequestError: The text is neither.
    """
    if text is None:
        return None
    layers: list[int] = []
    try:
        for part in filter(None, text.replace(" ", "").split(",")):
            first, _, last = part.partition("-")
            some = range(int(first), int(last or first) + 1)
            if not some:
                raise ValueError
            layers.extend(some)
    except ValueError:
        raise RequestError(f"layers {text!r} cannot be read; write them as 8,12,16 or 5-24") from None
    return layers
