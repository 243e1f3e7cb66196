"""Make a tiny model that looks words up in a dictionary of any length: the paper's small models, smaller still."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from longfocus.errors import RequestError
from longfocus.loading.adapters import AdapterNote
from longfocus.loading.defaults import BookHabits
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training.crossbatch import CrossDocuments
from longfocus.training.dictionary import Dictionary, DictionaryBatches, accuracy
from longfocus.training.engine import Run
from longfocus.training.fot import FotLesson, Growth, StepTeller
from longfocus.training.lessons import Lesson
from longfocus.training.settings import settings

_HEAD = 64
_LOCAL = 2
"""Layers before the memory layer: the first finds which token of an entry one is, the second gathers its key."""
_WINDOWS = 2
"""Of a document: definitions, then questions."""
_HABITS = BookHabits(look_back=0, top_k=None)
"""What the one memory layer keeps does not depend on what it saw, so it reads without looking back, and Books are the
same."""
_TESTED = (4, 1000, 25)
"""Documents, definitions and questions of what is told on the way."""


def dictionary(
    *,
    out: Path = Path("dictionary"),
    symbols: int = 61,
    key: int = 4,
    value: int = 4,
    hidden: int = 64,
    heads: int = 2,
    entries: str = "4,25@600",
    documents: str = "32,16@600",
    growth: str = "1,8@350,15@600",
    alike: str = "61,6@700",
    steps: int = 1200,
    rate: float = 6e-3,
    warmup: int = 40,
    seed: int = 0,
    evaluate_every: int = 100,
    save_every: int = 100,
) -> Run:
    """A model from scratch; in its last layer, which has memory and no positions, rows see other rows' definitions.

    Where a field has stages, a number holds from the step behind its @ on.

    Args:
        out: Where checkpoints go and, at the end, the model.
        symbols: Different tokens in keys and values.
        key: Tokens of a key.
        value: Tokens of a value.
        hidden: Width of the model.
        heads: Of attention, with 64 numbers each.
        entries: Of a window, in stages. Few to begin with: what is asked for is then found by chance more often. The
            last number makes the model's window.
        documents: Of a batch, in stages; each is a window of definitions and one of questions.
        growth: Of how many documents a question sees the definitions, in stages. With its own alone keys are learnt
            quickly, among many others they are learnt to be kept apart.
        alike: How many symbols the keys of a batch are made of, in stages. Of few, many keys differ in one symbol only,
            as they do among millions.
        steps: Of the optimizer.
        rate: Highest learning rate; it rises, stays, and falls.
        warmup: Steps in which it rises.
        seed: Of the first weights and of the documents.
        evaluate_every: Steps between evaluations: the share of values' tokens found in 1,000 definitions.
        save_every: Steps between checkpoints.
    """
    try:
        task = Dictionary(symbols, key, value)
    except ValueError as error:
        raise RequestError(str(error)) from None
    stages = _Stages(Growth.of(entries), Growth.of(documents), Growth.of(alike))
    stages.check(task, steps)
    torch.manual_seed(seed)
    model = LongLlamaForCausalLM(_config(task, hidden, heads, stages.entries.at(steps)))
    note = AdapterNote.of("", model.config, _HABITS)
    lesson = FotLesson(model, partial(CrossDocuments, packing=_WINDOWS), Growth.of(growth), note=note)
    arguments = settings(
        out,
        steps=steps,
        rate=rate,
        seed=seed,
        save_every=save_every,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": max(steps * 2 // 5, 1), "min_lr_ratio": 0.03},
        warmup_steps=min(warmup, steps // 2),
        adam_beta2=0.95,
        max_grad_norm=1.0,
        bf16=False,
        logging_steps=25,
    )
    return Run(
        lesson,
        _Staged(task, stages, seed, steps),
        arguments,
        (StepTeller(lesson),),
        evaluations=(partial(_found, task),),
        evaluate_every=evaluate_every,
        tokenizer=task.tokenizer(),
    )


def _config(task: Dictionary, hidden: int, heads: int, entries: int) -> LongLlamaConfig:
    """No positions in the memory layer, queries and keys normalised, as the paper's small models have it."""
    window = entries * task.entry
    return LongLlamaConfig(
        vocab_size=task.vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=_LOCAL + 1,
        num_attention_heads=heads,
        head_dim=_HEAD,
        mem_layers=[_LOCAL],
        mem_positionals=False,
        mem_dtype="bfloat16",
        qk_norm=True,
        initializer_range=0.1,
        tie_word_embeddings=True,
        window_length=window,
        last_context_length=window,
        max_position_embeddings=window,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


@dataclass(frozen=True)
class _Stages:
    """How large batches are, and how much alike keys in them, step by step."""

    entries: Growth
    documents: Growth
    alike: Growth

    def check(self, task: Dictionary, steps: int) -> None:
        """Refuse batches with more keys than there are, in stages that so many steps come to.

        Raises:
            RequestError: There is a stage with such batches.
        """
        starts = {start for stages in (self.entries, self.documents, self.alike) for start, _ in stages.stages}
        for step in sorted(start for start in starts if start < steps):
            wanted = self.entries.at(step) * self.documents.at(step)
            used = min(self.alike.at(step), task.symbols)
            if wanted > used**task.key:
                raise RequestError(
                    f"From step {step} on a batch defines {wanted} words, and {used} symbols make {used**task.key} "
                    f"keys of {task.key}; set --alike higher, or --documents or --entries lower."
                )


class _Staged(Dataset[dict[str, Tensor]]):
    """Batches by number, which change from stage to stage."""

    def __init__(self, task: Dictionary, stages: _Stages, seed: int, length: int) -> None:
        self._task, self._stages, self._seed, self._length = task, stages, seed, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        stage = DictionaryBatches(
            self._task,
            documents=self._stages.documents.at(number),
            windows=_WINDOWS,
            entries=self._stages.entries.at(number),
            seed=self._seed,
            length=self._length,
            alike=self._stages.alike.at(number),
        )
        return stage[number]


def _found(task: Dictionary, lesson: Lesson) -> dict[str, float]:
    count, definitions, questions = _TESTED
    definitions = min(definitions, task.keys // count)
    ids, labels = task.documents(count, definitions, min(questions, definitions), seed=10**6)
    device = next(lesson.parameters()).device
    return {"found": accuracy(lesson.model, ids.to(device), labels.to(device))}
