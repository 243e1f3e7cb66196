"""A library of many books in one Book: reading it, opening it, asking it, in time, memory and disk.

    python benchmarks/library.py FOLDER [--tokens 1048576] [--out PLACE] [--memory-dtype int8]

The texts in FOLDER follow each other, from the beginning again if they do not suffice, up to so many tokens. Reading,
and then asking, is a process of its own, as `longfocus read` and `longfocus ask` are; peak memory is what each had in
RAM at most, pages of mapped files included.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from own_process import tell, told_by

QUESTIONS = ("Who was found dead?", "What did the captain say?", "Where did they live?")


def library(folder: str, tokens: int) -> str:
    from longfocus.loading.load import load
    from longfocus.reading.documents import load_document

    tokenizer = load().tokenizer
    texts, counted = [], 0
    documents = [load_document(path) for path in sorted(Path(folder).iterdir()) if path.name.endswith(".txt.gz")]
    while counted < tokens:
        for document in documents:
            text = document.text[slice(*document.body)]
            ids = tokenizer(text, verbose=False)["input_ids"]
            texts.append(tokenizer.decode(ids[: tokens - counted]))
            counted += min(len(ids), tokens - counted)
    return "\n\n".join(text for text in texts if text)


def asked(book: str) -> dict:
    """Seconds to the first token, cold and warm, and MiB in memory."""
    import resource

    begun = time.perf_counter()
    from longfocus.asking.generation import Sampling
    from longfocus.cli.options import open_session

    session = open_session(book, None, "usual", quantize="auto")
    opened = time.perf_counter() - begun
    opened_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    next(session.stream(QUESTIONS[0], sampling=Sampling(max_new_tokens=2)))
    cold = time.perf_counter() - begun
    warm = [session.ask(question, sampling=Sampling(max_new_tokens=16)).timings for question in QUESTIONS]
    return {
        "tokens": len(session.book.ids),
        "bytes": sum(path.stat().st_size for path in Path(book).iterdir() if path.name.startswith("layer-")),
        "opened": opened,
        "opened_mib": opened_mib,
        "cold": cold,
        "warm": sorted(timing.first_token for timing in warm)[1],
        "answer": sorted(timing.total for timing in warm)[1],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def read(text: Path, book: Path, options: list[str]) -> dict:
    """Seconds and MiB of `longfocus read`."""
    import resource

    begun = time.perf_counter()
    command = [sys.executable, "-m", "longfocus", "read", str(text), "--out", str(book), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": time.perf_counter() - begun, "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--out", help="where the Book goes, and stays; by default it is removed")
    parser.add_argument("--memory-dtype", help="as for `longfocus read`")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        tell(asked(args.one))
        return
    options = ["--memory-dtype", args.memory_dtype] if args.memory_dtype else []
    with tempfile.TemporaryDirectory() as folder:
        text, book = Path(folder, "library.txt"), Path(args.out or Path(folder, "library.book"))
        text.write_text(library(args.folder, args.tokens), encoding="utf-8")
        reading = read(text, book, options)
        asking = told_by(__file__, args.folder, "--one", str(book))
    tokens = asking["tokens"]
    print(f"{tokens:,} tokens, {asking['bytes'] / tokens:,.0f} bytes a token, {asking['bytes'] / 2**30:.2f} GiB")
    print(f"read in {reading['seconds']:.0f} s, {tokens / reading['seconds']:,.0f} tokens/s with all else")
    print(f"  at most {reading['peak_mib']:,.0f} MiB in memory")
    print(f"opened in {asking['opened']:.2f} s, imports included, {asking['opened_mib']:,.0f} MiB in memory")
    print(f"first token {asking['cold']:.2f} s cold, {asking['warm']:.2f} s warm; 16 tokens {asking['answer']:.2f} s")
    print(f"  at most {asking['peak_mib']:,.0f} MiB in memory, the Book's mapped pages included")


if __name__ == "__main__":
    main()
