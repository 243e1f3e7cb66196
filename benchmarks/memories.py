"""What each kind of memory finds in a long text, what it takes, and what it costs.

    python benchmarks/memories.py NOVEL.txt
    python benchmarks/memories.py NOVEL.book --kinds top-k,ivf --layers 14 --k 16,128

A text is read into a Book first, with the default model; a Book that is there is used as it is. Queries are those of
questions behind the Book (--question, any number) and of the document's last tokens. Recall is of the k best entries,
mass the share of attention to memory that falls on what is chosen, error how far outputs are from those of an exact
memory of as many entries. Indexes are built in RAM. "ms" is wall time of one token in one layer, "cpu ms" the time of
processors, which other work on the machine changes less.
"""

import argparse
import tempfile
import time
from pathlib import Path

QUESTIONS = ("Who bought the poison?", "What was found in the fireplace?", "Where does the detective live?")


def opened(source: Path, scratch: Path):
    from longfocus.asking.session import Session
    from longfocus.books import load_for, read
    from longfocus.memory.book import StoredBook

    if source.is_dir():
        book = StoredBook.open(source)
        return Session(book, load_for(book), memory="top-k")
    return read(source, out=scratch / "text.book").session


def cpu_ms(memory, query, scale, tokens=16):
    """Milliseconds of processor time for one token in one layer."""
    count = min(tokens, query.shape[2])
    begun = time.process_time()
    for token in range(count):
        memory.attend(query[:, :, token : token + 1], scale)
    return 1e3 * (time.process_time() - begun) / count


def built(kind, exact, k):
    """The memory of each layer, what it takes besides the entries, and seconds of processor time to make it."""
    from longfocus.memory.approximate import ApproximateMemory, LayerIndex
    from longfocus.memory.faiss_kinds import INDEX_KINDS
    from longfocus.memory.kinds import packed_copy
    from longfocus.memory.top_k import TopKMemory

    begun = time.process_time()
    more = 0
    if kind in INDEX_KINDS:
        indexes = {layer: LayerIndex.of(kind, memory) for layer, memory in exact.items()}
        made = {layer: ApproximateMemory(exact[layer], k, index) for layer, index in indexes.items()}
        spent = time.process_time() - begun
        return made, sum(index.bytes for index in indexes.values()), spent
    made = dict(exact)
    if kind.startswith("int8"):
        made = {layer: packed_copy(memory) for layer, memory in made.items()}
    if kind in ("top-k", "int8"):
        made = {layer: TopKMemory(memory, k) for layer, memory in made.items()}
    return made, more, time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a text file, or a Book's folder")
    parser.add_argument("--kinds", default="dense,top-k,int8,int8-dense,hnsw,ivf,sq8")
    parser.add_argument("--k", default="16", help="entries that a query sees; several with commas")
    parser.add_argument("--layers", help="which memory layers, with commas; all by default")
    parser.add_argument("--queries", type=int, default=32, help="most queries of each head, layer and source")
    parser.add_argument("--question", action="append", default=None)
    args = parser.parse_args()

    import torch

    from longfocus.memory.inspection import questions_or_last_words
    from longfocus.memory.quality import Queries, quality

    with tempfile.TemporaryDirectory() as scratch:
        session = opened(args.source, Path(scratch))
        book, model = session.book, session.loaded.reader.model.model
        there = book.manifest.reading.memory_layers
        layers = tuple(int(each) for each in args.layers.split(",")) if args.layers else there
        if not set(layers) <= set(there):
            parser.error(f"--layers {args.layers}: this Book has memory in layers {', '.join(map(str, there))}")
        asked = [session.question_ids(question) for question in args.question or QUESTIONS]
        heard = [questions_or_last_words(model, book, ids, session.state, args.queries) for ids in (asked, [])]
        sources = ("questions", "its end")
        exact = {layer: book.memories()[layer] for layer in layers}
        print(f"{book.progress.entries:,} entries in each of layers {', '.join(map(str, layers))}")
        head = f"{'memory':<11}{'k':>5}  {'queries':<10}{'recall':>7}{'mass':>7}{'error':>8}{'ms':>8}{'cpu ms':>8}"
        print(f"{head}{'bytes/entry':>13}{'made in':>10}")
        for kind in args.kinds.split(","):
            for k in [int(each) for each in args.k.split(",")]:
                made, more, spent = built(kind, exact, k)
                for source, every in zip(sources, heard, strict=True):
                    queries = Queries({layer: every.layers[layer] for layer in layers}, every.scale)
                    found = quality(kind, made, exact, queries, more)
                    with torch.inference_mode():
                        times = [cpu_ms(made[layer], queries.layers[layer], queries.scale) for layer in layers]
                    per_entry = found.more_bytes / book.progress.entries / len(layers)
                    figures = f"{found.recall:>7.3f}{found.mass:>7.3f}{found.error:>8.4f}{found.ms:>8.2f}"
                    cost = f"{sum(times) / len(times):>8.2f}{per_entry:>13.0f}{spent:>8.1f} s"
                    print(f"{kind:<11}{k:>5}  {source:<10}{figures}{cost}", flush=True)
                if kind in ("dense", "int8-dense"):
                    break


if __name__ == "__main__":
    main()
