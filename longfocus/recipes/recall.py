"""Teach a checkpoint to answer from memory what it read, by exercises made up from a few books."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from longfocus.errors import RequestError
from longfocus.loading.adapters import AdapterNote
from longfocus.loading.defaults import UNTRAINED, BookHabits
from longfocus.loading.layer_numbers import layer_numbers
from longfocus.loading.load import LoadedModel, load
from longfocus.memory.book import StoredBook
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps
from longfocus.training.batches import Interleaved
from longfocus.training.book_questions import QuestionedBook, books_of
from longfocus.training.checked import book_parts, remaining_books, screen
from longfocus.training.engine import Batch, Run
from longfocus.training.exercise_data import ExerciseBatches, Stage
from longfocus.training.lessons import ATTENTION_PROJECTIONS, RecallLesson, with_lora
from longfocus.training.long_prose import BOOKS, LongProse, Shelf
from longfocus.training.parallel import parallel_arguments, processes
from longfocus.training.settings import settings
from longfocus.training.tales import SUMMARIES, tales_of

_log = logging.getLogger(__name__)

TALES = "tales"
_LONGEST_STORY = 300_000  # characters of a book that are read for long prose

_KINDS = {
    "records": 5.0,
    "facts": 2.0,
    "pass_key": 1.0,
    "quotations": 1.0,
    "topics": 1.0,
    "hops": 0.5,
    "tales": 2.0,
}


def recall(
    *,
    out: Path = Path("recall"),
    data: Path = Path("data"),
    model: str = "",
    start: str = "",
    memory_layers: str = "9,14,15,18",
    first_layer: int = 8,
    rank: int = 32,
    rate: float = 1e-3,
    short: int = 150,
    middle: int = 150,
    long: int = 100,
    bank: int = 24576,
    alike: float = 0.5,
    prose: float = 3.0,
    long_prose: int = 0,
    furthest: int = 32768,
    looked_up: float = 0.75,
    reads: bool = False,
    keep: float = 0.0,
    mem_discount: float | None = None,
    evaluation: str = "",
    shard: bool = False,
    seed: int = 1,
    save_every: int = 25,
) -> Run:
    """Stages of growing length; in the last ones entries of earlier documents are seen as well.

    A step takes one batch in each process.

    Args:
        out: Where checkpoints and, at the end, the adapter go.
        data: Folder with `books/index.json` and the files of `narrativeqa`; the books of its split "valid" give the
            prose, the summaries of that split the tales.
        model: Checkpoint; empty for the default model.
        start: Folder of an adapter to begin with, of the same rank and layers; empty for a fresh one.
        memory_layers: Layers that get a memory, with commas between them; empty for those of `longfocus read`.
        first_layer: The first layer that learns.
        rank: Of the LoRA adapter on the projections of attention.
        rate: Highest learning rate; rises over 10 steps, then falls as a cosine.
        short: Batches of 4 documents of 1,024 to 2,048 tokens.
        middle: Batches of 4 documents of 2,048 to 4,096 tokens.
        long: Batches of 2 documents of 8,192 tokens; of 4 of up to 16,384 for an adapter that does not read.
        bank: Entries of earlier documents that are seen as well; of those that are lists of records.
        alike: The share of batches whose documents are all of one kind.
        prose: How often a book's own next words are asked for, where all other exercises together come ten times.
        long_prose: Batches of 4 passages of books, each to be gone on with behind what the same book's memory holds,
            among the others; not with `reads`. The books are read first, into `books` in `out`.
        furthest: How far back at most that memory goes, in tokens.
        looked_up: The share of questions that have passages of their document before them, as answers have that were
            looked up.
        reads: Whether the adapter learns to read as well. Otherwise documents are read by the model as it is.
        keep: How much it counts that documents, as they are read, are predicted as without the adapter; with `reads`
            alone, as without it nothing changes how they are read.
        mem_discount: How much less a memory counts the longer it is; 0 for not at all. By default as with
            `longfocus read`: 0.5 for a checkpoint that has no memory of its own.
        evaluation: Folder with the evaluation sets that data is checked against, where what overlaps is left out;
            empty for the folder of the data.
        shard: Whether weights are divided among the processes.
        seed: Of the exercises and of the adapter's first weights.
        save_every: Steps between checkpoints.
    """
    if reads and long_prose:
        raise RequestError(
            "Long prose is for an adapter that does not read: its Books are read once. "
            "Leave out --reads or --long-prose."
        )
    if keep and not reads:
        raise RequestError(
            "An adapter that does not read leaves reading as it is: there is nothing to keep. "
            "Leave out --keep, or give --reads as well."
        )
    layers = layer_numbers(memory_layers or None)
    batches = short + middle + long + long_prose
    arguments = settings(
        out,
        steps=-(-batches // processes()[1]),
        rate=rate,
        seed=seed,
        save_every=save_every,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        **parallel_arguments(shard=shard),
    )
    loaded = load(model or None, adapter=None, mem_layers=layers, mem_discount=mem_discount)
    books = books_of(data)
    tales = tales_of(data) if (data / "narrativeqa" / SUMMARIES).is_file() else []
    screening = screen(
        {**book_parts(books), TALES: [tale.document() for tale in tales]}, Path(evaluation) if evaluation else data
    )
    books = remaining_books(books, screening)
    tales = [tale for place, tale in enumerate(tales) if place not in screening.left_out[TALES]]
    room = min(448, loaded.model.config.stride)
    kinds = {**_KINDS, "continuation": prose}
    notes = screening.lines()
    if not tales:
        del kinds["tales"]
        notes += (
            f"no exercises in tales: {data / 'narrativeqa'} has no {SUMMARIES}, or none that is no evaluation data",
        )
    stages = (
        Stage(short, 4, (1024, 2048, 2048), kinds, room, alike, looked_up),
        Stage(middle, 4, (2048, 4096), kinds, room, alike, looked_up),
        Stage(long, 2 if reads else 4, (8192,) if reads else (8192, 16384), kinds, room, alike, looked_up),
    )
    # before there is an adapter in the model
    shelf = _shelf(loaded, books, out / BOOKS, arguments) if long_prose else None
    torch.manual_seed(seed)
    loaded.model.requires_grad_(False)
    student = with_lora(loaded.model, rank, ATTENTION_PROJECTIONS, first_layer)
    data_set: Dataset[Batch] = ExerciseBatches(loaded.tokenizer, [book.story() for book in books], stages, seed, tales)
    if shelf is not None:
        data_set = Interleaved(
            data_set, LongProse(shelf, loaded.model.config.stride, long_prose, 4, furthest, seed), seed
        )
    habits = BookHabits(look_back=0, top_k=None, look_up=UNTRAINED.look_up if looked_up else 0)
    note = AdapterNote.of(loaded.fingerprint, loaded.model.config, habits, reads)
    lesson = RecallLesson(student, bank, note, keep, reads, shelf)
    if start:
        lesson.restore(Path(start))
    return Run(lesson, data_set, arguments, (screening,), notes=notes)


def _shelf(loaded: LoadedModel, books: Sequence[QuestionedBook], folder: Path, arguments: TrainingArguments) -> Shelf:
    """The books as Books, read by the first process as far as they have not been yet."""
    read = []
    for number, book in enumerate(books, 1):
        # others wait for each book, as they would not wait long enough for all
        with arguments.main_process_first(local=False):
            if arguments.process_index == 0:
                _log.info(
                    "reading %s, book %d of %d for long prose; kept in %s", book.title, number, len(books), folder
                )
                story = book.story()[:_LONGEST_STORY]
                document = Document(book.title, story, (0, len(story)))
                for _ in read_steps(document, loaded, folder / book.id, framed=False):
                    pass
        read.append(StoredBook.open(folder / book.id))
    return Shelf(read)
