"""Teach a checkpoint to use memory by cross-batch training on plain documents, as LongLLaMA was made."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from longfocus.errors import RequestError
from longfocus.loading.adapters import AdapterNote
from longfocus.loading.defaults import TRAINED
from longfocus.loading.layer_numbers import layer_numbers
from longfocus.loading.load import LoadedModel, load
from longfocus.training.checked import screen
from longfocus.training.crossbatch import CrossBatch, CrossDocuments
from longfocus.training.document_files import open_documents
from longfocus.training.document_tables import hub_documents
from longfocus.training.documents import Documents, LeftOut
from longfocus.training.engine import Run
from longfocus.training.fot import FotLesson, Growth, HeldOut, Seen, StepTeller, check_rows
from longfocus.training.lessons import ATTENTION_PROJECTIONS, with_lora
from longfocus.training.loader import PackedLoader
from longfocus.training.mixture import Mixture
from longfocus.training.packing import PackedDataset, Packing
from longfocus.training.parallel import parallel_arguments, processes
from longfocus.training.settings import settings
from longfocus.training.sources import DocumentEncoder, Source

SCHEMES: dict[str, Callable[[int], Callable[[int], Seen]]] = {
    "stepping": lambda pack: partial(CrossBatch, stepping=True, packing=pack),
    "alike": lambda pack: partial(CrossBatch, stepping=False, packing=pack),
    "documents": lambda pack: partial(CrossDocuments, packing=pack),
}
"""Who sees whom, for rows in packs of so many."""


def fot(
    *,
    out: Path = Path("fot"),
    data: str = "data/books",
    text: str = "text",
    shortest: int = 1,
    separator: str = "",
    evaluation: str = "data",
    held_out: str = "",
    held_out_batches: int = 8,
    evaluate_every: int = 0,
    model: str = "",
    start: str = "",
    memory_layers: str = "10,14,18,22",
    rank: int = 0,
    rows: int = 8,
    row_tokens: int = 1024,
    pack: int = 4,
    growth: str = "3",
    scheme: str = "stepping",
    within_documents: bool = False,
    checkpointing: bool = False,
    steps: int = 1000,
    rate: float = 5e-5,
    warmup: int = 50,
    weight_decay: float = 0.01,
    accumulation: int = 1,
    shard: bool = False,
    seed: int = 1,
    save_every: int = 50,
) -> Run:
    """Documents packed without padding; in memory layers, rows see rows before them. The loss counts every token.

    Args:
        out: Where checkpoints go and, at the end, what was trained.
        data: Files or folders (.txt, .jsonl, .parquet) or datasets of the hub (hub:NAME@SPLIT), with commas between
            them; behind each, if not all are to give equally many tokens, a colon and its share.
        text: The field or column that holds the text, in files that have such.
        shortest: Fewest tokens of a document; shorter ones are passed over.
        separator: Token between documents, where the tokenizer's own marks are for a chat's turns; empty for those.
        evaluation: Folder with the evaluation sets that data is checked against, where what overlaps is left out;
            empty for no check.
        held_out: A file or folder whose loss is told on the way and at the end, rows seeing nothing but themselves.
        held_out_batches: How many batches of it.
        evaluate_every: Steps between; 0 for the end only.
        model: Checkpoint; empty for the default model.
        start: Folder of an earlier run's weights to begin with, of the same rank and layers; empty for none.
        memory_layers: Layers that get a memory, with commas between them; empty for a LongLLaMA's own, or those of
            `longfocus read`.
        rank: Of a LoRA adapter on the projections of attention; 0 trains the whole model. An adapter wants a rate some
            ten times as high.
        rows: Rows of a batch, over all processes; a row sees those of its own process alone.
        row_tokens: Tokens of a row, which become the model's window.
        pack: Rows in a row that are one document's windows.
        growth: How many rows are seen, such as 3; with stages as in 1,7@500 (from step 500 on); 1/7 draws one of them
            for each step. With the scheme "documents", of how many documents.
        scheme: Who sees whom. stepping: rows before, ever more from the first to the last of a pack, as LongLLaMA 3B;
            alike: as many for all; documents: earlier windows of the own document and of the next ones, as the paper's
            small models.
        within_documents: Whether a token sees only those of its own document in its row.
        checkpointing: Whether layers are computed anew for their gradients, which takes longer and less memory.
        steps: Of the optimizer.
        rate: Learning rate, the same throughout after the warm-up.
        warmup: Steps in which it rises.
        weight_decay: Of the weights that are matrices.
        accumulation: Batches in a step; rows of different batches do not see each other.
        shard: Whether weights are divided among the processes.
        seed: Of the documents' order, the draws of `growth`, and an adapter's first weights.
        save_every: Steps between checkpoints.
    """
    if scheme not in SCHEMES:
        raise RequestError(f"There is no scheme {scheme!r}; wanted {', '.join(SCHEMES)}.")
    if evaluate_every and not held_out:
        raise RequestError("There is nothing to evaluate on. Name it (--held-out FILE), or leave out --evaluate-every.")
    layers = layer_numbers(memory_layers or None)
    packing, stages = Packing.doc_aware_k(rows, row_tokens, pack), Growth.of(growth, seed)
    check_rows(SCHEMES[scheme](pack), stages, rows, pack, processes()[1])
    arguments = settings(
        out,
        steps=steps,
        rate=rate,
        seed=seed,
        save_every=save_every,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=warmup,
        weight_decay=weight_decay,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        gradient_accumulation_steps=accumulation,
        **parallel_arguments(shard=shard),
    )
    sources = _opened(data, text)
    screening = screen(sources, Path(evaluation) if evaluation else None)
    torch.manual_seed(seed)
    loaded = load(
        model or None,
        adapter=None,
        mem_layers=layers,
        window=row_tokens,
        window_overlap=0,
        sink_tokens=0,
        last_context_length=row_tokens,
        dtype=None if rank else "float32",  # small steps would be lost in bfloat16; what is computed is in it anyway
    )
    student: Any = loaded.model
    if checkpointing:
        student.activation_checkpointing_enable()
    if rank:
        student = with_lora(loaded.model, rank, ATTENTION_PROJECTIONS)
    else:
        student.requires_grad_(True)
    lesson = FotLesson(
        student,
        SCHEMES[scheme](pack),
        stages,
        within_documents=within_documents,
        note=AdapterNote.of(loaded.fingerprint, loaded.model.config, TRAINED) if rank else None,
    )
    if start:
        lesson.restore(Path(start))
    encode = _encoder(loaded, separator)
    kept = {name: _clean(name, documents, screening.left_out[name]) for name, documents in sources.items()}
    stream = Mixture(
        [Source(name, documents, encode, seed=seed, shortest=shortest) for name, documents in kept.items()],
        _shares(data),
        seed=seed,
    )
    rank_here, count = processes()
    batches = PackedDataset(stream, packing, bos_token_id=encode.bos, rank=rank_here, world_size=count)
    return Run(
        lesson,
        PackedLoader(batches),
        arguments,
        (StepTeller(lesson), screening),
        evaluations=(_held_out(held_out, text, encode, rows, row_tokens, held_out_batches),) if held_out else (),
        evaluate_every=evaluate_every,
        tokenizer=loaded.tokenizer,
        fingerprint=loaded.fingerprint,
        notes=screening.lines(),
    )


def _named(data: str) -> list[tuple[str, float]]:
    """Names of sources and their shares."""
    found = [re.fullmatch(r"(.+?)(?::(\d+(?:\.\d+)?))?", part.strip()) for part in data.split(",")]
    if None in found:
        raise RequestError(f"{data!r} names no data; wanted files, folders or hub:NAME@SPLIT with commas between them.")
    return [(match[1], float(match[2] or 1)) for match in found if match is not None]


def _shares(data: str) -> dict[str, float]:
    return dict(_named(data))


def _opened(data: str, text: str) -> dict[str, Documents]:
    """The documents of each source, by the name it was given."""
    names = [name for name, _ in _named(data)]
    if len(set(names)) < len(names):
        raise RequestError(f"{data!r} names a source twice.")
    return {name: _documents(name, text) for name in names}


def _documents(name: str, text: str) -> Documents:
    if not name.startswith("hub:"):
        return open_documents(name, text)
    dataset, _, split = name.removeprefix("hub:").partition("@")
    return hub_documents(dataset, split or "train", text=text)


def _clean(name: str, documents: Documents, contaminated: frozenset[int]) -> Documents:
    if len(contaminated) == len(documents):
        raise RequestError(f"All {len(documents)} documents of {name} hold evaluation data; take others to train on.")
    return LeftOut(documents, contaminated)


def _encoder(loaded: LoadedModel, separator: str) -> DocumentEncoder:
    if not separator:
        return DocumentEncoder.of(loaded.tokenizer)
    found = loaded.tokenizer.get_vocab().get(separator)
    if found is None:
        raise RequestError(f"The tokenizer has no token {separator!r}.")
    return DocumentEncoder(loaded.tokenizer, None, found)


def _held_out(name: str, text: str, encode: DocumentEncoder, rows: int, row_tokens: int, count: int) -> HeldOut:
    source = Source(name, _documents(name, text), encode, seed=None, epochs=1)
    packed = PackedDataset(source, Packing.linear(rows, row_tokens), bos_token_id=encode.bos)
    if found := list(islice(packed, count)):
        return HeldOut(found)
    raise RequestError(f"{name} does not fill a batch of {rows} rows of {row_tokens} tokens.")
