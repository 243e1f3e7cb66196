"""Figures of lengths that were not measured, from those that were."""


def line_at(points: dict[int, float], length: int) -> float:
    """The value at a length, by the least squares line through values at other lengths."""
    middle = sum(points) / len(points)
    mean = sum(points.values()) / len(points)
    spread = sum((place - middle) ** 2 for place in points)
    slope = sum((place - middle) * (value - mean) for place, value in points.items()) / spread if spread else 0.0
    return mean + slope * (length - middle)
