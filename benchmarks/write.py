"""Writing speed: ours with each kind of weights against transformers and llama.cpp, with nothing and with much behind.

    longfocus read BOOK.txt
    python benchmarks/write.py BOOK [--gguf MODEL.gguf] [--tokens 64] [--behind 0,4096,16384] [--subjects ...]

Ours writes behind a short prompt with an empty memory, and behind the Book with all of its entries in memory. The
others write behind as many tokens of the Book's text as `--behind` says, by full attention; how long one token takes
them is fitted as a line in that number and told at the Book's length. Each subject runs in a process of its own, one
after another, on all cores; the median of three runs counts. llama.cpp needs the wheel `xllamacpp` and a GGUF file.
"""

import argparse
import os
import time

from fits import line_at
from own_process import QUIET, tell, told_by
from read import THREADS

OURS = ("bfloat16", "int8", "int4")
PROMPT = "What happened to the old lady?"
WARM = 4


def stored(book: str):
    from longfocus.memory.book import StoredBook
    from longfocus.memory.library import find_book

    return StoredBook.open(find_book(book))


def run_ours(kind: str, book: str, tokens: int) -> dict:
    """Seconds for one token with an empty memory ("0") and behind the Book (by its entries), and MiB in memory."""
    import resource

    import torch

    from longfocus.asking.session import Session
    from longfocus.books import load_for
    from longfocus.loading.packed_weights import for_writing, packed_bytes
    from longfocus.model.cache import LongLlamaCache

    torch.set_num_threads(THREADS)
    found = stored(book)
    loaded = load_for(found)
    if kind != "bfloat16":
        loaded = for_writing(loaded, kind)
    session = Session(found, loaded)
    empty = LongLlamaCache.of_memories({}, loaded.model.config.num_hidden_layers)
    ids = session.question_ids(PROMPT)
    return {
        "seconds": {
            "0": written(loaded, ids, empty, tokens),
            str(found.progress.entries): written(loaded, ids, session.state, tokens),
        },
        "packed_mib": packed_bytes(loaded.model) / 2**20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def written(loaded, ids: list[int], state, tokens: int) -> float:
    """Seconds for one token of an answer of `tokens`, as `longfocus ask` writes it, text and all."""
    from dataclasses import replace

    from longfocus.asking.generation import Sampling, write

    model = loaded.model
    model.generation_config.eos_token_id = -1  # so that answers are of one length
    runs = []
    for _ in range(3):
        times = []
        for item in write(model, loaded.tokenizer, ids, state, replace(Sampling(), max_new_tokens=tokens)):
            if isinstance(item, str):
                times.append(time.perf_counter())
        runs.append((times[-1] - times[0]) / (tokens - 1))
    return sorted(runs)[1]


def run_transformers(book: str, behind: int, tokens: int, _: str | None) -> float:
    import torch
    from transformers import LlamaForCausalLM

    from longfocus.loading.load import load

    torch.set_num_threads(THREADS)
    loaded = load()
    model = LlamaForCausalLM.from_pretrained(loaded.folder, dtype=loaded.model.dtype).eval()
    ids = torch.tensor(stored(book).ids[: max(behind, 64)].tolist())[None]
    with torch.inference_mode():
        output = model(ids, logits_to_keep=1, use_cache=True)
        runs = []
        for count in (WARM, tokens, tokens, tokens):
            begun = time.perf_counter()
            for _step in range(count):
                token = output.logits[:, -1:].argmax(-1)
                output = model(token, past_key_values=output.past_key_values, use_cache=True)
            runs.append((time.perf_counter() - begun) / count)
    return sorted(runs[1:])[1]


def run_llamacpp(book: str, behind: int, tokens: int, gguf: str | None) -> float:
    from llamacpp import llamacpp

    from longfocus.loading.load import load

    text = load().tokenizer.decode(stored(book).ids[: max(behind, 64)].tolist())
    how = {"prompt": text, "temperature": 0.0, "cache_prompt": True, "ignore_eos": True}
    runs = []
    with llamacpp(gguf, behind + 4 * (tokens + WARM) + 512, THREADS) as server:
        for count in (WARM, tokens, tokens, tokens):
            timings = server.handle_completions({**how, "max_tokens": count})["timings"]
            runs.append(timings["predicted_ms"] / 1000 / timings["predicted_n"])
    return sorted(runs[1:])[1]


PEERS = {"transformers": run_transformers, "llamacpp": run_llamacpp}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book", help="a Book's folder or its name on the shelf")
    parser.add_argument("--subjects", default="bfloat16,int8,int4,transformers")
    parser.add_argument("--behind", default="0,4096,16384", help="for the others; the first counts as empty")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--gguf", help="the model as GGUF; then llama.cpp runs as well")
    parser.add_argument("--one", nargs=2, metavar=("SUBJECT", "BEHIND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        subject, behind = args.one
        if subject in OURS:
            tell(run_ours(subject, args.book, args.tokens))
        else:
            tell({"seconds": PEERS[subject](args.book, int(behind), args.tokens, args.gguf)})
        return
    subjects = args.subjects.split(",") + (["llamacpp"] if args.gguf and "llamacpp" not in args.subjects else [])
    more = ["--tokens", str(args.tokens), *(["--gguf", args.gguf] if args.gguf else [])]
    table: dict[str, tuple[float, float]] = {}
    entries = 0
    for subject in subjects:
        points: dict[int, float] = {}
        for behind in [0] if subject in OURS else [int(place) for place in args.behind.split(",")]:
            try:
                result = told_by(__file__, args.book, *more, "--one", subject, str(behind), **QUIET)
            except RuntimeError as error:
                print(f"{subject}: {error}", flush=True)
                break
            if subject in OURS:
                points = {int(length): seconds for length, seconds in result["seconds"].items()}
                entries = max(points)
                print(
                    f"{subject}: {result['packed_mib']:.0f} MiB packed, peak {result['peak_mib']:.0f} MiB", flush=True
                )
            else:
                points[behind] = result["seconds"]
                print(f"{subject}: {1 / result['seconds']:.1f} tokens/s behind {behind:,}", flush=True)
        if points:
            table[subject] = (1 / points[min(points)], 1 / line_at(points, entries or max(points)))
    print(f"\n{os.cpu_count()} cores; tokens/s, and how many times llama.cpp's")
    print(f"{'weights':>14} {'empty':>8} {'ratio':>7} {f'{entries:,} behind':>16} {'ratio':>7} {'of empty':>9}")
    rival = table.get("llamacpp")
    for subject, (empty, full) in table.items():
        ratios = ["", ""] if rival is None else [f"{empty / rival[0]:.2f}", f"{full / rival[1]:.1f}"]
        print(f"{subject:>14} {empty:>8.1f} {ratios[0]:>7} {full:>16.1f} {ratios[1]:>7} {full / empty:>9.0%}")


if __name__ == "__main__":
    main()
