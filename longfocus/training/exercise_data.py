"""Batches of exercises by number: stages of growing difficulty, each batch drawn from its own number alone.

That a batch depends on nothing but the seed and its number is what lets a run go on exactly where it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from longfocus.errors import RequestError
from longfocus.training.examples import IGNORED
from longfocus.training.exercise_kinds import CROWDED, EXERCISES, PLAIN
from longfocus.training.exercises import Writer
from longfocus.training.tales import Tale


@dataclass(frozen=True)
class Stage:
    """So many batches alike.

    Attributes:
        batches: How many.
        rows: Documents in a batch.
        tokens: Tokens of a document, one of these lengths for each batch.
        kinds: Kinds of exercise with weights.
        room: Most tokens of questions and answers.
        alike: The share of batches whose rows are all of one kind; in these, what a row asks for is hardest to tell
            from what the others hold.
        looked_up: The share of questions that have passages of their document before them.
    """

    batches: int
    rows: int
    tokens: tuple[int, ...]
    kinds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys([*PLAIN, "continuation"], 1.0))
    room: int = 448
    alike: float = 0.0
    looked_up: float = 0.0


class ExerciseBatches(Dataset[dict[str, Tensor]]):
    """What `RecallLesson` takes: "documents" [B, N], "asked" [B, T], "labels" [B, T] and "crowded" [B].

    Args:
        tokenizer: The model's.
        texts: Books to take prose and words from.
        stages: In order.
        seed: What makes them repeatable.
        tales: For exercises in these.

    Raises:
        RequestError: A kind of exercise that there is not.
    """

    def __init__(
        self, tokenizer: Any, texts: Sequence[str], stages: Sequence[Stage], seed: int, tales: Sequence[Tale] = ()
    ) -> None:
        known = {*EXERCISES, "continuation"}
        for stage in stages:
            if unknown := set(stage.kinds) - known:
                raise RequestError(f"no exercises {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        self._stages = stages
        self._seed = seed
        self._writer = Writer(tokenizer, texts, seed, tales)

    def __len__(self) -> int:
        return sum(stage.batches for stage in self._stages)

    def stage(self, number: int) -> Stage:
        """In which stage a batch is.

        Raises:
            IndexError: There are fewer batches.
        """
        for stage in self._stages:
            if number < stage.batches:
                return stage
            number -= stage.batches
        raise IndexError(number)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        stage = self.stage(number)
        writer = self._writer
        writer.chance = random.Random(f"{self._seed} {number}")
        writer.forget_keys()
        tokens = writer.chance.choice(stage.tokens)
        kinds = writer.chance.choices(list(stage.kinds), list(stage.kinds.values()), k=stage.rows)
        if writer.chance.random() < stage.alike:
            kinds = kinds[:1] * stage.rows
        exercises = [writer.write(kind, tokens, stage.room, stage.looked_up) for kind in kinds]
        longest = max(len(exercise.asked) for exercise in exercises)
        return {
            "documents": torch.tensor([exercise.document for exercise in exercises]),
            "asked": torch.tensor([_padded(exercise.asked, longest, 0) for exercise in exercises]),
            "labels": torch.tensor([_padded(exercise.labels, longest, IGNORED) for exercise in exercises]),
            "crowded": torch.tensor([exercise.kind in CROWDED for exercise in exercises]),
        }


def _padded(ids: list[int], length: int, padding: int) -> list[int]:
    return ids + [padding] * (length - len(ids))
