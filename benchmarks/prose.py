"""What memory does to a book's next words: by how much of the book it holds, how many entries count, and how much.

    python benchmarks/prose.py DATA [--layers 9,14,15,18 | --adapter FOLDER] [--passages 6] [--full]

DATA is a folder with `books/index.json` and `narrativeqa`, of which the books of the split "valid" are taken. Of each
book 32,768 tokens are read; the next 1,024 are predicted with nothing in memory, and with its last so many entries.
Printed is the mean loss in nats a token and what it differs from that without memory; with `--full` also what full
attention over so many tokens gives, as many as the model was trained on and no more.
"""

import argparse
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

READ, PASSAGE = 32768, 1024


def passages(loaded, data: Path, count: int, folder: Path):
    """Books read so far, and the tokens that come next."""
    from longfocus.loading.prompts import encode_text
    from longfocus.memory.book import StoredBook
    from longfocus.reading.documents import Document
    from longfocus.reading.reader import read_steps
    from longfocus.training.book_questions import books_of

    for number, book in enumerate(books_of(data)):
        ids = encode_text(loaded.tokenizer, book.story())
        if len(ids) < READ + 2 * PASSAGE or not count:
            continue
        count -= 1
        start = random.Random(number).randrange(len(ids) - READ - PASSAGE)
        text = loaded.tokenizer.decode(ids[start : start + READ])
        for _ in read_steps(Document(book.title, text, (0, len(text))), loaded, folder / book.id, framed=False):
            pass
        yield StoredBook.open(folder / book.id), ids[start + READ : start + READ + PASSAGE]


def holding(state, entries: int, best: int):
    """The state with the last so many entries in memory, of which so many count for a query; 0 for all."""
    from longfocus.memory.top_k import TopKMemory
    from longfocus.model.cache import LongLlamaCache
    from longfocus.model.memory import DenseMemory

    layers = []
    for layer in state.layers:
        if layer.memory is not None:
            keys, values, _ = layer.memory.entries()
            memory = DenseMemory.of(keys[:, :, -entries:].contiguous(), values[:, :, -entries:].contiguous())
            layer = replace(layer, memory=None if not entries else TopKMemory(memory, best) if best else memory)
        layers.append(layer)
    return LongLlamaCache(layers, state.positions, state.keep)


@torch.inference_mode()
def loss(model, state, ids: list[int]) -> float:
    """Mean negative log-likelihood of all tokens but the first, a window at a time."""
    logits = []
    for piece in torch.tensor([ids]).split(model.config.stride, dim=1):
        output = model(piece, past_key_values=state, use_cache=True, last_context_length=piece.shape[1])
        state = output.past_key_values
        logits.append(output.logits[0].float())
    return float(torch.nn.functional.cross_entropy(torch.cat(logits)[:-1], torch.tensor(ids[1:])))


@torch.inference_mode()
def full_losses(books, lengths: tuple[int, ...]) -> dict[int, float]:
    """Mean losses of the same passages behind so many tokens, all of them attended to by all layers."""
    from longfocus.loading.load import load

    model = load(adapter=None, mem_layers=[], window=max(lengths) + PASSAGE, window_overlap=0, sink_tokens=0).model
    found = {}
    for length in lengths:
        losses = []
        for before, ids in books:
            whole = torch.cat((before[:4], before[4 - length :], torch.tensor(ids)))[None]
            states = model.model(whole, last_context_length=whole.shape[1]).last_hidden_state[0, length:-1]
            losses.append(
                float(torch.nn.functional.cross_entropy(model.lm_head(states).float(), whole[0, length + 1 :]))
            )
        found[length] = sum(losses) / len(losses)
    return found


def main() -> None:
    from longfocus.asking.session import Session
    from longfocus.loading.layer_numbers import layer_numbers
    from longfocus.loading.load import load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--layers", default="9,14,15,18")
    parser.add_argument("--adapter")
    parser.add_argument("--passages", type=int, default=6)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    how = {"adapter": options.adapter} if options.adapter else {"mem_layers": layer_numbers(options.layers)}
    loaded = load(**({"adapter": None} | how))
    settings = [(0, 0, 0.0)]
    settings += [(held, best, part) for held in (1024, 7168, READ) for best in (0, 16) for part in (0.0, 0.5, 1.0)]
    losses: dict[tuple[int, int, float], list[float]] = {setting: [] for setting in settings}
    books = []
    with tempfile.TemporaryDirectory() as folder:
        for book, ids in passages(loaded, options.data, options.passages, Path(folder)):
            state = Session(book, loaded).state
            for held, best, part in settings:
                for layer in loaded.model.model.layers:
                    layer.self_attn.discount = part
                losses[held, best, part].append(loss(loaded.model, holding(state, held, best), ids))
            books.append((book.ids, ids))
            print(f"{book.manifest.title}: {losses[0, 0, 0.0][-1]:.4f}", flush=True)
    without = losses.pop((0, 0, 0.0))
    print(f"\nnothing in memory: {sum(without) / len(without):.4f}")
    print(f"{'entries':>8} {'best':>5} {'discount':>9} {'loss':>8} {'difference':>11}")
    for (held, best, part), found in losses.items():
        mean = sum(found) / len(found)
        print(f"{held:8} {best or 'all':>5} {part:9} {mean:8.4f} {mean - sum(without) / len(without):+11.4f}")
    if options.full:
        for length, mean in full_losses(books, (1024, 2048, 4096, 7168)).items():
            print(f"full attention over {length} tokens: {mean:.4f}")


if __name__ == "__main__":
    main()
