"""What `longfocus plan` predicts beside what is measured: peak resident memory and time, each in a process of its own.

    longfocus plan --measure
    python benchmarks/plan.py BOOK.txt [--settings read-4096,ask] [--model FOLDER] [--small]

Prints for each setting the peak in MiB, planned and measured, and the seconds, likewise, with their ratios. Rates are
those that `longfocus plan --measure` kept; measure on a machine with nothing else to do. Memory is what Linux calls the
peak of resident memory, libraries and mapped files included. Of training the seconds are those of the last step.
`--small` leaves out what takes more than a minute on two cores.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from own_process import QUIET, tell, told_by

THREADS = os.cpu_count() or 1
SEEN, PACK, LAYERS = 3, 4, (10, 14, 18, 22)
ASKED = 448
QUESTION = "What happened to the old lady?"
WRITTEN = 48


@dataclass(frozen=True)
class Setting:
    """What is run: `job` is read, ask, full, fot, recall or full-attention."""

    job: str
    tokens: int
    rows: int = 1
    window: int | None = None
    layers: tuple[int, ...] | None = None
    look_back: int | None = 0
    rank: int = 32
    labelled: int = 0
    long: bool = False


SETTINGS = {
    "read-4096": Setting("read", 4096),
    "read-16384": Setting("read", 16_384),
    "read-65536": Setting("read", 65_536, long=True),
    "read-window-512": Setting("read", 8192, window=512),
    "read-window-2048": Setting("read", 8192, window=2048),
    "read-seven-layers": Setting("read", 8192, layers=tuple(range(17, 24))),
    "read-looking-back": Setting("read", 8192, look_back=None),
    "ask-8192": Setting("ask", 8192),
    "ask-65536": Setting("ask", 65_536, long=True),
    "full-2048": Setting("full", 2048),
    "full-8192": Setting("full", 8192),
    "fot-adapter": Setting("fot", 512, rows=4, labelled=2048),
    "fot-whole": Setting("fot", 512, rows=8, rank=0, labelled=4096, long=True),
    "recall-2048": Setting("recall", 2048, rows=2, layers=(9, 14, 15, 18), labelled=2 * (ASKED - 1)),
    "full-attention-2048": Setting("full-attention", 2048, labelled=2048),
    "full-attention-4096": Setting("full-attention", 4096, labelled=512),
}


def planned(name: str, setting: Setting, model: str | None, given: dict) -> dict:
    """Bytes and seconds by the planner; `given` is what the measurement was about, as it turned out."""
    import longfocus_cli  # noqa: F401 - then longfocus leaves torch out, and this process stays small
    from longfocus.loading.cache import cache_dir
    from longfocus.loading.shapes import find_shape, way_with_memory
    from longfocus.planning import counted, times, training
    from longfocus.planning.rates import RATES_FILE, REFERENCE, read_rates
    from longfocus.planning.ways import full_way

    found = find_shape(model)
    shape = found.shape
    device = read_rates(cache_dir() / f"cpu-{RATES_FILE}") or REFERENCE
    dtype = given["dtype"]
    item, rates = {"bfloat16": 2, "float32": 4}[dtype], device.rates_of(dtype)
    way = way_with_memory(found, setting.layers, setting.window, adapter=False)  # as `load` with adapter=None
    way = replace(way, look_back=setting.look_back)
    tokens = given["tokens"]
    if setting.job == "read":
        kept = counted.reading(shape, way, tokens, device, item)
        return {"bytes": kept.resident, "seconds": times.reading_seconds(shape, way, tokens, rates, item)}
    if setting.job == "full":
        kept = counted.attending_in_full(shape, tokens, 0, device, item)
        way = full_way(shape, tokens)
        return {"bytes": kept.resident, "seconds": times.reading_seconds(shape, way, tokens, rates, item)}
    if setting.job == "ask":
        asked = given["question"]
        kept = counted.asking(shape, way, tokens, asked, WRITTEN, device, item)
        first = times.first_token_seconds(shape, way, tokens, asked, rates, item)
        return {
            "bytes": kept.resident,
            "seconds": first + (WRITTEN - 1) * times.token_seconds(shape, way, tokens, rates, item),
        }
    lesson = training.usual_lesson(setting.job, setting.tokens)
    lesson = replace(lesson, rows=setting.rows, rank=setting.rank, labelled=setting.labelled, memory_layers=4)
    if setting.job == "recall":
        lesson = replace(lesson, bank=setting.rows * way.entries(setting.tokens))
    kept = training.step_bytes(shape, way, lesson, device)
    rates = device.rates_of("bfloat16")
    return {"bytes": kept.resident, "seconds": training.step_seconds(shape, way, lesson, rates)}


def memory_options(setting: Setting) -> dict:
    return {"mem_layers": setting.layers, "window": setting.window}


def text_of(book: str, tokenizer, tokens: int) -> str:
    """So many tokens of the book, which is repeated where it is shorter; no more text is in memory than that."""
    text = Path(book).read_text(encoding="utf-8", errors="replace")[: 5 * tokens]
    ids = tokenizer(text, verbose=False)["input_ids"]
    while len(ids) < tokens:
        ids = ids + ids
    return tokenizer.decode(ids[:tokens])


def run_read(setting: Setting, book: str, model: str | None, folder: Path) -> dict:
    from longfocus.loading.load import load
    from longfocus.reading.documents import Document
    from longfocus.reading.reader import read_steps

    loaded = load(model, adapter=None, **memory_options(setting))
    text = text_of(book, loaded.tokenizer, setting.tokens)
    for step in read_steps(Document("book", text, (0, len(text))), loaded, folder, look_back=setting.look_back):
        last = step
    return {"tokens": last.total, "seconds": last.seconds, "dtype": named(loaded.model.dtype)}


def run_ask(setting: Setting, book: str, model: str | None, folder: Path) -> dict:
    """In a process that finds the Book read: see `measured`."""
    from longfocus.asking.generation import Sampling
    from longfocus.asking.session import Session
    from longfocus.loading.load import load
    from longfocus.memory.book import StoredBook

    loaded = load(model, adapter=None, **memory_options(setting))
    loaded.model.generation_config.eos_token_id = loaded.model.config.vocab_size  # none: so many tokens are written
    session = Session(StoredBook.open(folder), loaded)
    session.ask(QUESTION, sampling=Sampling(max_new_tokens=2))  # pages of the Book are read from the disk once
    begun = time.perf_counter()
    session.ask(QUESTION, sampling=Sampling(max_new_tokens=WRITTEN))
    return {
        "tokens": session.book.manifest.tokens,
        "question": len(session.question_ids(QUESTION)),
        "seconds": time.perf_counter() - begun,
        "dtype": named(loaded.model.dtype),
    }


def run_full(setting: Setting, book: str, model: str | None, folder: Path) -> dict:
    import torch
    from transformers import LlamaForCausalLM

    from longfocus.loading.load import load

    loaded = load(model, adapter=None)
    tokens = loaded.tokenizer(text_of(book, loaded.tokenizer, setting.tokens), verbose=False)["input_ids"]
    bare = LlamaForCausalLM.from_pretrained(loaded.folder, dtype=loaded.model.dtype).eval()
    dtype = named(loaded.model.dtype)
    del loaded
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        bare(ids[:, :512], logits_to_keep=1)
        begun = time.perf_counter()
        bare(ids, logits_to_keep=1)
        return {"tokens": ids.shape[1], "seconds": time.perf_counter() - begun, "dtype": dtype}


def run_training(setting: Setting, book: str, model: str | None, folder: Path) -> dict:
    """Steps of a lesson by the loop that `longfocus train` runs, on tokens that are drawn."""
    import torch
    from torch.utils.data import Dataset
    from transformers import TrainerCallback

    from longfocus.training.engine import Run, train
    from longfocus.training.settings import settings

    class Drawn(Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, number):
            return batch_of(setting, vocabulary, torch.Generator().manual_seed(number))

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            self.begun = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            self.seconds = time.perf_counter() - self.begun

    torch.manual_seed(0)
    lesson, vocabulary = lesson_of(setting, model)
    clock = Clock()
    arguments = settings(folder, steps=3, rate=1e-5, seed=1, save_every=10**6)
    train(Run(lesson.train(), Drawn(), arguments, (clock,)))
    return {"tokens": setting.tokens, "seconds": clock.seconds, "dtype": "bfloat16"}


def lesson_of(setting: Setting, model: str | None):
    from longfocus.loading.load import load
    from longfocus.training.crossbatch import CrossBatch
    from longfocus.training.fot import FotLesson, Growth
    from longfocus.training.full_attention import FullAttentionLesson, load_extended, with_anima_lora
    from longfocus.training.lessons import ATTENTION_PROJECTIONS, RecallLesson, with_lora

    if setting.job == "full-attention":
        pupil = load_extended(model, setting.tokens, "none")
        return FullAttentionLesson(with_anima_lora(pupil.model, setting.rank, 16)), pupil.model.config.vocab_size
    if setting.job == "recall":
        loaded = load(model, adapter=None, mem_layers=setting.layers)
        student = with_lora(loaded.model.requires_grad_(False), setting.rank, ATTENTION_PROJECTIONS, 8)
        return RecallLesson(student, 24_576, reads=False), loaded.model.config.vocab_size
    whole = {"window": setting.tokens, "window_overlap": 0, "sink_tokens": 0, "last_context_length": setting.tokens}
    dtype = None if setting.rank else "float32"
    student = load(model, adapter=None, mem_layers=LAYERS, dtype=dtype, **whole).model
    vocabulary = student.config.vocab_size
    if setting.rank:
        student = with_lora(student, setting.rank, ATTENTION_PROJECTIONS)
    else:
        student.requires_grad_(True)
    return FotLesson(student, partial(CrossBatch, packing=PACK), Growth.of(str(SEEN))), vocabulary


def batch_of(setting: Setting, vocabulary: int, chance) -> dict:
    import torch

    def drawn(length):
        return torch.randint(3, vocabulary, (setting.rows, length), generator=chance)

    ids = drawn(setting.tokens)
    if setting.job == "recall":
        asked = drawn(ASKED)
        return {"documents": ids, "asked": asked, "labels": asked}
    labels = ids.clone()
    labels[:, : setting.tokens - setting.labelled // setting.rows] = -100
    return {"input_ids": ids, "labels": labels}


def named(dtype) -> str:
    return str(dtype).removeprefix("torch.")


RUNS = {
    "read": run_read,
    "ask": run_ask,
    "full": run_full,
    "fot": run_training,
    "recall": run_training,
    "full-attention": run_training,
}


def measured(name: str, setting: Setting, arguments: argparse.Namespace) -> dict:
    """One setting in a process of its own; a Book that is to be asked is read in another one before."""
    with tempfile.TemporaryDirectory() as folder:
        more = ["--model", arguments.model] if arguments.model else []
        common = (arguments.book, *more, "--folder", str(Path(folder, "made")), "--one")
        training = {"THP_MEM_ALLOC_ENABLE": "1"} if setting.job in ("fot", "recall", "full-attention") else {}
        if setting.job == "ask":
            told_by(__file__, *common, name, "--as", "read", **QUIET)
        return told_by(__file__, *common, name, **QUIET, **training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book")
    parser.add_argument("--settings", default="", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--model", help="a folder; without it, the default model")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--as", dest="job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        setting = SETTINGS[arguments.one]
        result = RUNS[arguments.job or setting.job](setting, arguments.book, arguments.model, arguments.folder)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        tell({**result, "bytes": most})
        return
    names = arguments.settings.split(",") if arguments.settings else list(SETTINGS)
    columns = f"{'planned':>10} {'measured':>9} {'ratio':>6}"
    print(f"{'':<20} {'MiB':>10}{'seconds':>34}\n{'setting':<20} {columns} {columns}")
    for name in names:
        setting = SETTINGS[name]
        if arguments.small and setting.long:
            continue
        try:
            found = measured(name, setting, arguments)
        except RuntimeError as error:
            print(f"{name:<20} {error}", flush=True)
            continue
        ahead = planned(name, setting, arguments.model, found)
        line = f"{name:<20} {ahead['bytes'] / 2**20:>10,.0f} {found['bytes'] / 2**20:>9,.0f}"
        line += f" {ahead['bytes'] / found['bytes']:>6.2f} {ahead['seconds']:>10.2f} {found['seconds']:>9.2f}"
        print(f"{line} {ahead['seconds'] / found['seconds']:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
