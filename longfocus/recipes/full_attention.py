"""Take a checkpoint to 100,000 tokens of full attention, in the manner of Anima 100K."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from longfocus.training.batches import RowBatches
from longfocus.training.book_questions import books_of
from longfocus.training.checked import Screening, book_parts, record_documents, remaining_books, screen, without
from longfocus.training.completions import CompletionFormat
from longfocus.training.engine import Run
from longfocus.training.extend import RECIPE, eight_bit_adamw
from longfocus.training.full_attention import CausalCollator, FullAttentionLesson, load_extended, with_anima_lora
from longfocus.training.long_questions import LengthBand, LongQuestions
from longfocus.training.parallel import parallel_arguments
from longfocus.training.records import load_records
from longfocus.training.settings import settings
from longfocus.training.tuning_data import Rows, TuningDataset


def full_attention(
    *,
    out: Path = Path("full-attention"),
    data: Path = Path("data"),
    evaluation: str = "",
    model: str = "",
    start: str = "",
    length: int = 100_000,
    shortest: int = 30_000,
    extension: str = "linear",
    rank: int = 32,
    alpha: int = 16,
    steps: int = RECIPE["max_steps"],
    rate: float = RECIPE["learning_rate"],
    accumulation: int = RECIPE["gradient_accumulation_steps"],
    offload: str = "",
    optimizer: str = "",
    shard: bool = False,
    context_parallel: int = 1,
    seed: int = 1,
    save_every: int = 10,
) -> Run:
    """Books with questions, or prompts with completions, of which the answers are learnt; a row is a batch.

    Args:
        out: Where checkpoints and, at the end, the adapter go.
        data: Folder with `books/index.json` and `narrativeqa/qa_valid_test.jsonl.gz`, of whose split "valid" rows are
            made; or a .json or .jsonl file of records with `prompt` and `completion`.
        evaluation: Folder with the evaluation sets that data is checked against, where what overlaps is left out;
            empty for the folder of the data.
        model: Checkpoint; empty for the default model.
        start: Folder of an adapter of this recipe to begin with; empty for a fresh one.
        length: Tokens of the longest row; a book that is longer loses a stretch of its middle.
        shortest: Rows of books are drawn from this length to the longest.
        extension: How positions are stretched to the length: linear, dynamic, yarn, or none.
        rank: Of the LoRA adapter in every linear layer.
        alpha: Its output counts alpha / rank times.
        steps: Of the optimizer.
        rate: Learning rate, the same throughout.
        accumulation: Rows in a step.
        offload: Where what layers take waits for its gradient: empty for where it is, "cpu" for the machine's memory
            when the model is on a GPU, else a folder on a disk.
        optimizer: As transformers calls it; empty for AdamW, with states of 8 bits on a GPU with bitsandbytes.
        shard: Whether weights are divided among the processes.
        context_parallel: How many processes share a row.
        seed: Of the rows, their order and the adapter's first weights.
        save_every: Steps between checkpoints.
    """
    arguments = settings(
        out,
        steps=steps,
        rate=rate,
        seed=seed,
        save_every=save_every,
        lr_scheduler_type=RECIPE["lr_scheduler_type"],
        max_grad_norm=RECIPE["max_grad_norm"],
        gradient_accumulation_steps=accumulation,
        optim=optimizer or usual_optimizer(),
        **parallel_arguments(shard=shard, context_parallel=context_parallel),
    )
    torch.manual_seed(seed)
    pupil = load_extended(model or None, length, extension)
    lesson = FullAttentionLesson(with_anima_lora(pupil.model, rank, alpha), offload=offload)
    if start:
        lesson.restore(Path(start))
    sets = Path(evaluation) if evaluation else data if data.is_dir() else data.parent
    rows, screening = _rows(pupil.tokenizer, data, sets, shortest, length, seed)
    collator = CausalCollator(multiple=2 * context_parallel if context_parallel > 1 else 1)
    count = steps * accumulation * arguments.world_size
    batches = RowBatches(rows, collator, rows_each=1, batches=count, seed=seed)
    return Run(lesson, batches, arguments, (screening,), fingerprint=pupil.fingerprint, notes=screening.lines())


def _rows(
    tokenizer: Any, data: Path, evaluation: Path, shortest: int, length: int, seed: int
) -> tuple[Rows, Screening]:
    """The rows of a folder of books or of a file of prompts, and what was left out of them."""
    if data.is_dir():
        books = books_of(data)
        screening = screen(book_parts(books), evaluation)
        bands = [LengthBand(min(shortest, length), length)]
        return LongQuestions(remaining_books(books, screening), tokenizer, lengths=bands, seed=seed), screening
    records = load_records(data)
    screening = screen({data.name: record_documents(records, data.name)}, evaluation)
    kept = without(records, screening.left_out[data.name])
    return TuningDataset(kept, CompletionFormat(longest=length), tokenizer), screening


def usual_optimizer() -> str:
    """The optimizer where none is asked for, as transformers calls it."""
    paged = torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes") is not None
    return eight_bit_adamw() if paged else "adamw_torch"
