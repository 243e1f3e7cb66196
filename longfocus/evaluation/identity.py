"""What results depend on besides a model's weights: its memory's settings, as words that tell runs apart."""

from __future__ import annotations

from itertools import groupby

from longfocus.loading.load import LoadedModel


def identity_of(loaded: LoadedModel) -> str:
    """The model's fingerprint and the settings that its answers depend on, with spaces between them."""
    config, habits = loaded.model.config, loaded.habits
    settings = {
        "layers": ranges(tuple(config.mem_layers or ())) or "none",
        "window": config.window,
        "overlap": config.window_overlap,
        "sinks": config.sink_tokens,
        "last": config.last_context_length,
        "discount": f"{config.mem_discount:g}",
        "look-back": habits.look_back,
        "top-k": habits.top_k,
    }
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    return " ".join([loaded.fingerprint[:16], dtype, *(f"{name}={value}" for name, value in settings.items())])


def differences(identities: list[str]) -> list[str]:
    """In a few words, what each of several identities has that not all of the others have; no two are alike."""
    parts = [identity.split(" ") for identity in identities]
    common = set.intersection(*map(set, parts))
    own = [" ".join(_short(part) for part in each if part not in common) or "otherwise the same" for each in parts]
    return own if len(set(own)) == len(own) else identities


def ranges(numbers: tuple[int, ...]) -> str:
    """Ascending numbers, `5-9,12` for 5, 6, 7, 8, 9 and 12."""
    runs = (
        [number for _, number in run] for _, run in groupby(enumerate(numbers), lambda placed: placed[1] - placed[0])
    )
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _short(part: str) -> str:
    return f"{part[:8]}…" if len(part) == 16 and "=" not in part else part
