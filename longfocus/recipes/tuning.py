"""Tune a checkpoint to follow instructions and to converse, with memory layers or with full attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from longfocus.errors import RequestError
from longfocus.loading.adapters import AdapterNote
from longfocus.loading.defaults import TRAINED
from longfocus.loading.layer_numbers import layer_numbers
from longfocus.loading.load import load
from longfocus.training.batches import BorderedBatches, RowBatches
from longfocus.training.book_questions import books_of
from longfocus.training.checked import Screening, book_parts, record_documents, remaining_books, screen, without
from longfocus.training.engine import Run
from longfocus.training.full_attention import CausalCollator, FullAttentionLesson, load_extended, with_anima_lora
from longfocus.training.lessons import Lesson, with_lora
from longfocus.training.long_questions import LengthBand, LongQuestions
from longfocus.training.padding import Collator
from longfocus.training.parallel import parallel_arguments
from longfocus.training.settings import settings
from longfocus.training.tuning_data import TuningMixture
from longfocus.training.tuning_lesson import TuningLesson
from longfocus.training.tuning_options import TuningOptions

TEMPLATES = ("chat", "longllama")


def tuning(
    *,
    out: Path = Path("tuning"),
    data_path: str = "data/instruct/openorca.jsonl",
    data_type: str = "instructions",
    data_filter: str = "",
    data_proportions: str = "1",
    prompt_field: str = "system_prompt",
    question_field: str = "question",
    response_field: str = "response",
    chat_conversations_field: str = "conversations",
    chat_data_field: str = "value",
    chat_source_name_field: str = "from",
    chat_initial_prompt: str = TuningOptions.chat_initial_prompt,
    chat_replace_rules: str = "",
    template: str = "chat",
    longest: int = 2048,
    always_pad: bool = False,
    books: str = "",
    books_share: float = 0.1,
    books_length: int = 8192,
    evaluation: str = "data",
    model: str = "",
    start: str = "",
    full_attention: bool = False,
    extension: str = "none",
    memory_layers: str = "",
    window: int = 0,
    last_context: int = 0,
    fixed_border: bool = False,
    rank: int = 32,
    targets: str = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
    first_layer: int = 0,
    rate: float = 1e-4,
    warmup: int = 100,
    steps: int = 1000,
    rows: int = 4,
    accumulation: int = 16,
    shard: bool = False,
    seed: int = 1,
    save_every: int = 50,
) -> Run:
    """Short examples in LongLLaMA's forms or by the chat template, and long ones of books with questions.

    Args:
        out: Where checkpoints and, at the end, the adapter go.
        data_path: A .json or .jsonl file for each data set, with commas between them.
        data_type: "instructions" (as OpenOrca) or "chat" (as ShareGPT) for each, likewise.
        data_filter: Rules for each with "<,>" between them; empty keeps everything.
        data_proportions: The share of each, with commas between them; together 1.
        prompt_field: Field of the system prompt in instructions; "None" for data sets without.
        question_field: Field of the question.
        response_field: Field of the response.
        chat_conversations_field: Field of a conversation's turns.
        chat_data_field: Field of what is said in a turn.
        chat_source_name_field: Field of who says it.
        chat_initial_prompt: Text before the first turn in LongLLaMA's form.
        chat_replace_rules: What is changed in every turn, REGEX<R>TEXT with "<;>" between them.
        template: "chat" for the tokenizer's own chat template, "longllama" for LongLLaMA's forms.
        longest: Most tokens of a short example; the end of what is longer is cut off.
        always_pad: Whether short examples are padded to that length, in place of the longest in the batch.
        books: Folder with `books/index.json` and `narrativeqa/qa_valid_test.jsonl.gz` for long examples; empty for
            none.
        books_share: Share of the long examples.
        books_length: Tokens of the longest of them; the middle of a longer book is left out.
        evaluation: Folder with the evaluation sets that data is checked against, where what overlaps is left out;
            empty for no check.
        model: Checkpoint; empty for the default model.
        start: Folder of an adapter to begin with, of the same rank, projections and layers; empty for a fresh one.
        full_attention: Whether to tune with full attention in place of memory layers, LoRA then being Anima's: in all
            linear layers.
        extension: How positions are stretched for full attention: linear, dynamic, yarn, or none.
        memory_layers: Layers that get a memory, with commas between them; empty for those of `longfocus read`.
        window: Most tokens that a layer attends to directly; 0 for as many as with `longfocus read`.
        last_context: Most tokens of the last window; 0 for what the model has.
        fixed_border: Whether the last window has that many in every batch, in place of a number drawn for each.
        rank: Of the LoRA adapter.
        targets: Projections that get one, with commas between them.
        first_layer: The first layer that learns.
        rate: Highest learning rate; rises during the warm-up, then falls as a cosine.
        warmup: Steps in which it rises.
        steps: Of the optimizer.
        rows: Examples in a batch.
        accumulation: Batches in a step.
        shard: Whether weights are divided among the processes.
        seed: Of order, borders and the adapter's first weights.
        save_every: Steps between checkpoints.
    """
    if template not in TEMPLATES:
        raise RequestError(f"no template {template!r}; there are {', '.join(TEMPLATES)}")
    if full_attention:
        _refuse(
            "Full attention has no memory, and learns in all linear layers",
            memory_layers=memory_layers, window=window, last_context=last_context, fixed_border=fixed_border,
            targets=targets, first_layer=first_layer,
        )  # fmt: skip
    else:
        _refuse("Positions are stretched for full attention alone", extension=extension)
    if not books:
        _refuse("Without books there are no long examples", books_share=books_share, books_length=books_length)
    layers = layer_numbers(memory_layers or None)
    options = TuningOptions(
        data_path=data_path,
        data_type=data_type,
        data_filter=data_filter or None,
        data_proportions=_shares(data_proportions),
        prompt_field=prompt_field,
        question_field=question_field,
        response_field=response_field,
        chat_conversations_field=chat_conversations_field,
        chat_data_field=chat_data_field,
        chat_source_name_field=chat_source_name_field,
        chat_initial_prompt=chat_initial_prompt,
        chat_replace_rules=chat_replace_rules or None,
        max_input_length=longest,
        max_output_length=longest,
        max_total_length=longest,
        always_pad=always_pad,
        random_pad=False,
        template=template == "chat",
    )
    arguments = settings(
        out,
        steps=steps,
        rate=rate,
        seed=seed,
        save_every=save_every,
        lr_scheduler_type="cosine",
        warmup_steps=warmup,
        gradient_accumulation_steps=accumulation,
        **parallel_arguments(shard=shard),
    )
    torch.manual_seed(seed)
    lesson: Lesson
    fingerprint = ""
    if full_attention:
        pupil = load_extended(model or None, max(longest, books_length if books else 0), extension)
        tokenizer: Any = pupil.tokenizer
        fingerprint = pupil.fingerprint
        lesson = FullAttentionLesson(with_anima_lora(pupil.model, rank, rank))
    else:
        loaded = load(
            model or None,
            adapter=None,
            mem_layers=layers,
            window=window or None,
            last_context_length=last_context or None,
        )
        tokenizer = loaded.tokenizer
        note = AdapterNote.of(loaded.fingerprint, loaded.model.config, TRAINED)
        lesson = TuningLesson(with_lora(loaded.model, rank, targets.split(","), first_layer), note)
    if start:
        lesson.restore(Path(start))
    mixture, screening = _data(options, tokenizer, books, books_share, books_length, evaluation, seed)
    count = steps * accumulation * arguments.world_size
    collator = CausalCollator() if full_attention else Collator(token=0)  # any token will do, as nothing looks at it
    batches: Any = RowBatches(mixture, collator, rows_each=rows, batches=count, seed=seed)
    if not full_attention and not fixed_border:
        batches = BorderedBatches(batches, lesson.model.config.last_context_length, seed)
    return Run(lesson, batches, arguments, (screening,), fingerprint=fingerprint, notes=screening.lines())


def _refuse(reason: str, **fields: object) -> None:
    """Refuse fields that make no difference where they are given, that is are not as the recipe has them."""
    defaults = tuning.__kwdefaults__ or {}
    given = [f"--{name.replace('_', '-')}" for name, value in fields.items() if value != defaults[name]]
    if given:
        raise RequestError(f"{reason}. Leave out {', '.join(given)}.")


def _data(
    options: TuningOptions, tokenizer: Any, books: str, share: float, length: int, evaluation: str, seed: int
) -> tuple[TuningMixture, Screening]:
    """Short and long examples, and what was left out of them."""
    records = options.records()
    asked = books_of(books) if books else []
    parts = {path: record_documents(found, Path(path).name) for path, found in records.items()}
    screening = screen({**parts, **book_parts(asked)}, Path(evaluation) if evaluation else None)
    mixture = options.mixture(
        tokenizer, {path: without(found, screening.left_out[path]) for path, found in records.items()}
    )
    if not asked:
        return mixture, screening
    long = LongQuestions(
        remaining_books(asked, screening), tokenizer, lengths=[LengthBand(max(length // 4, 1), length)], seed=seed
    )
    shares = [each * (1 - share) for each in options.data_proportions]
    return TuningMixture([*mixture.datasets, long], [*shares, share], options.mix_seed), screening


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise RequestError(f"data_proportions is {text!r}; wanted numbers with commas between them") from None
