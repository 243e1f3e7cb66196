"""What others have published on the tasks that are theirs, to stand beside our figures and be told from them.

Numbers are facts taken from the works named in `SOURCES`; models, prompts and subsets differ from ours, so they are a
scale to read ours on, not a contest. Where a work names no interval, Wilson's on its number of prompts would be some
0.2 wide on either side at 20 prompts, 0.13 at 50.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SOURCES = {
    "LongLLaMA": "Tworkowski et al., Focused Transformer, 2023, and its repository",
    "LongChat": "Li et al., How Long Can Open-Source LLMs Truly Promise on Context Length?, 2023: 50 prompts a length",
    "Anima": "lyogavin, Anima 100K, 2023: 20 prompts of 86K to 92K tokens",
}


@dataclass(frozen=True)
class Published:
    """One figure of somebody else's.

    Attributes:
        task: The task of ours that follows theirs.
        length: As they give it, in the form of `Length`.
        model: Their model.
        score: As our score: from 0 to 1, or a perplexity.
        source: A key of SOURCES.
    """

    task: str
    length: str
    model: str
    score: float
    source: str


_TABLES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("lines", "LongChat", "200lines 300lines 400lines 500lines 600lines 680lines", (
        "LongChat-13B-16K .96 .94 .92 .94 .80 .60",
        "LongChat-7B-16K .98 .90 .86 .78 .52 .44",
        "ChatGLM2-6B .32 .14 .06 .08 .06 .04",
        "MPT-30B-chat .82 .40 .00 .02 - -",
        "MPT-7B-storywriter .40 .24 .28 .18 .24 .28",
    )),
    ("topics", "LongChat", "5topics 10topics 15topics 20topics 25topics", (
        "LongChat-13B-16K 1.00 1.00 1.00 .98 .88",
        "LongChat-7B-16K 1.00 .98 .94 .84 .60",
        "ChatGLM2-6B .86 .46 .00 .02 .00",
        "MPT-30B-chat .96 1.00 .88 - -",
        "MPT-7B-storywriter .52 .42 .42 .30 .28",
    )),
    ("lines", "Anima", "4000lines", (
        "Claude-2-100K .85", "Together-LLaMA-2-32K .20", "LongChat-32K-v1.5 .05", "Anima-100K-7B .45",
    )),
    ("topics", "Anima", "130topics", (
        "Claude-2-100K .90", "Together-LLaMA-2-32K .15", "LongChat-32K-v1.5 .05", "Anima-100K-7B .50",
    )),
    ("bookqa", "Anima", "100k", (
        "Claude-2-100K .6187", "Together-LLaMA-2-32K .3833", "LongChat-32K-v1.5 .2416", "Anima-100K-7B .4919",
    )),
    ("passkey", "LongLLaMA", "100k 256k", ("LongLLaMA-3B .945 .73",)),
    ("trec-fine", "LongLLaMA", "2k 4k 6k 8k", ("LongLLaMA-3B .670 .716 .729 .733", "LongLLaMA-7B .632 .727 .749 .759")),
    ("webqs", "LongLLaMA", "2k 4k 6k 8k", ("LongLLaMA-3B .212 .214 .222 .224", "LongLLaMA-7B .255 .264 .272 .277")),
    ("perplexity", "LongLLaMA", "2k 4k 16k 64k", (
        "FoT-184M-(PG-19) 23.74 23.25 22.85 22.65",
        "Memorizing-Transformer-184M-(PG-19) 24.03 23.62 23.32 23.24",
    )),
    ("humaneval", "LongLLaMA", "whole", ("OpenLLaMA-3B-v2 .09", "LongLLaMA-3B-v1.1 .12", "LongLLaMA-3B-Instruct .12")),
)  # fmt: skip


def published() -> Iterator[Published]:
    """All of them, in the order in which a report gives them."""
    for task, source, lengths, rows in _TABLES:
        for row in rows:
            model, *scores = row.split()
            for length, score in zip(lengths.split(), scores, strict=True):
                if score != "-":
                    yield Published(task, length, model.replace("-(", " ("), float(score), source)
