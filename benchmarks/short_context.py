"""What an adapter costs where there is nothing to remember: perplexity of short texts from several fields.

    python benchmarks/short_context.py DATA [--adapter FOLDER] [--fields books,code] [--texts 20] [--tokens 2048]

Each text is predicted by itself, cut to so many tokens, in a fresh window and with an empty memory; its first token is
not counted. Three ways:
    untrained   the checkpoint as it is, all of the text in one window: full attention
    adapter     the same with the adapter's weights
    as used     with the adapter, as a text of this length goes through its windows and its memory
Printed are perplexities and by how much the two with the adapter are above the first, with 95 % intervals by a
bootstrap over texts, in which a text has both of its losses. Texts are plain text, without a chat template.

DATA is a folder laid out as evaluation sets are published (docs/training.md), with `instruct/openorca*.jsonl*` besides.
Of books and summaries those of the split "test" are taken, which no recipe trains on; fields whose files are not there
are passed over and named.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

WAYS = ("untrained", "adapter", "as used")


def books(data: Path) -> Iterator[str]:
    from longfocus.training.book_questions import books_of

    for book in books_of(data, splits=("test",), for_reporting=True):
        story = book.story()
        start = random.Random(book.id).randrange(max(len(story) // 2, 1))
        yield story[story.find(" ", start) + 1 :]


def summaries(data: Path) -> Iterator[str]:
    from longfocus.training.book_questions import tidy

    asked = records(data, "narrativeqa/qa_*.jsonl*")
    test = {record["document_id"] for record in asked if record["set"] == "test"}
    for record in records(data, "narrativeqa/summaries_*.jsonl*"):
        if record["document_id"] in test:
            yield tidy(record["summary_tokenized"])


def conversations(data: Path) -> Iterator[str]:
    for record in records(data, "longchat/conversations_*.jsonl*"):
        yield record["conversation"]


def instructions(data: Path) -> Iterator[str]:
    for record in records(data, "instruct/openorca*.jsonl*"):
        yield "\n\n".join(part for part in (record["system_prompt"], record["question"], record["response"]) if part)


def code(data: Path) -> Iterator[str]:
    for record in records(data, "humaneval/HumanEval.jsonl*"):
        yield record["prompt"] + record["canonical_solution"]


FIELDS: dict[str, Callable[[Path], Iterator[str]]] = {
    one.__name__: one for one in (books, summaries, conversations, instructions, code)
}
"""Of texts, by name: functions from the folder of the data."""


def records(data: Path, pattern: str) -> list[dict]:
    from longfocus.training.records import load_records

    found = sorted(data.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern}")
    return load_records(found[0])


def models(name: str | None, adapter: str, tokens: int) -> dict[str, object]:
    """The model of each way; those of the first two have room for a whole text in one window."""
    from longfocus.loading.load import load

    whole = {"window": tokens, "window_overlap": 0, "sink_tokens": 0, "last_context_length": tokens}
    return {
        "untrained": load(name, adapter=None, **whole),
        "adapter": load(name, adapter=adapter, **whole),
        "as used": load(name, adapter=adapter),
    }


@torch.inference_mode()
def summed_loss(model, ids: torch.Tensor) -> float:
    """Negative log-likelihood of all tokens [T] but the first, in nats."""
    logits = model(ids[None]).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))


def above(first: np.ndarray, other: np.ndarray, counts: np.ndarray) -> str:
    """By how much a perplexity is above the first, in per cent, with its interval: of summed losses, one a text."""
    from longfocus.evaluation.intervals import bootstrap

    more = other - first
    low, high = bootstrap(len(more), lambda draws: np.expm1(more[draws].sum(1) / counts[draws].sum(1)))
    return f"{math.expm1(more.sum() / counts.sum()):+7.2%} ({low:+.2%} to {high:+.2%})"


def main() -> None:
    from longfocus.loading.adapters import USUAL
    from longfocus.loading.prompts import encode_text

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", help="by default the default model")
    parser.add_argument("--adapter", default=USUAL, help="by default the one that comes with the model")
    parser.add_argument("--fields", default=",".join(FIELDS))
    parser.add_argument("--texts", type=int, default=20, help="of a field, drawn with a fixed seed")
    parser.add_argument("--tokens", type=int, default=2048, help="of a text at most")
    options = parser.parse_args()
    loaded = models(options.model, options.adapter, options.tokens)
    tokenizer = loaded["untrained"].tokenizer
    every: dict[str, list[float]] = {way: [] for way in (*WAYS, "tokens")}
    print(f"{'field':<14} {'texts':>5} {'tokens':>7} {'untrained':>9}  adapter, as used: perplexity, above untrained")
    for field in options.fields.split(","):
        try:
            texts = [text for text in FIELDS[field](options.data) if text.strip()]
        except FileNotFoundError as error:
            print(f"{field:<14} passed over: {error} in {options.data}")
            continue
        found: dict[str, list[float]] = {way: [] for way in every}
        for text in random.Random(0).sample(texts, min(options.texts, len(texts))):
            ids = torch.tensor(encode_text(tokenizer, text[: 16 * options.tokens])[: options.tokens])
            if len(ids) < 2:
                continue
            found["tokens"].append(len(ids) - 1)
            for way in WAYS:
                found[way].append(summed_loss(loaded[way].model, ids))
        tell(field, found)
        for name, values in found.items():
            every[name] += values
    tell("all", every)


def tell(field: str, found: dict[str, list[float]]) -> None:
    counts, losses = np.array(found["tokens"]), {way: np.array(found[way]) for way in WAYS}
    if not len(counts):
        print(f"{field:<14} no texts")
        return
    perplexity = {way: math.exp(loss.sum() / counts.sum()) for way, loss in losses.items()}
    line = f"{field:<14} {len(counts):5} {counts.sum():7,} {perplexity['untrained']:9.3f}"
    for way in WAYS[1:]:
        line += f"  {perplexity[way]:9.3f} {above(losses['untrained'], losses[way], counts)}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
