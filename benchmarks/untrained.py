"""Which layers, how many sinks, how many entries: what an untrained model makes of memory, by measurement.

    python benchmarks/untrained.py BOOK.txt [--settings NAME,...] [--adapter FOLDER]

The setting "trained" is the model with an adapter, for comparison: the one that comes with it, unless another is named.

Two measures on a document of which the model has read all but the end:
    perplexity   of the next 448 tokens, mean over three places of the book, 8,192 tokens read before each
    facts        six sentences planted in the text and a question on each: how often the fact is the first passage,
                 or among the first three, that `find` and the answer's citations give; and the mean negative
                 log-likelihood of the fact's key word behind the question and the fact's beginning
"""

import argparse
import tempfile
from pathlib import Path

import torch

FACTS = (
    (
        "The password of the old lighthouse was marble fountain.",
        "What was the password of the old lighthouse?",
        "marble",
    ),
    ("Mrs. Pendlebury kept forty-seven parrots in her kitchen.", "How many parrots did Mrs. Pendlebury keep?", "forty"),
    ("The pass key is 48213. Remember it. 48213 is the pass key.", "What is the pass key?", "48213"),
    ("Captain Orlov sailed from Trieste in a yellow boat.", "From which city did Captain Orlov sail?", "Trieste"),
    ("The baker's daughter was named Philomena Grubb.", "What was the baker's daughter's name?", "Philomena"),
    ("The treasure was buried beneath the weeping goose.", "Where was the treasure buried?", "the weeping"),
)
SETTINGS = {
    "usual": ({}, {}, 16),
    "no discount": ({"mem_discount": 0.0}, {}, 16),
    "all entries, no discount": ({"mem_discount": 0.0}, {}, 10**9),
    "no sinks": ({"sink_tokens": 0}, {}, 16),
    "layers 17-23": ({"mem_layers": range(17, 24)}, {}, 16),
    "layers 10-16": ({"mem_layers": range(10, 17)}, {}, 16),
    "layers 14-24": ({"mem_layers": range(14, 25)}, {}, 16),
    "all layers": ({"mem_layers": range(30)}, {}, 16),
    "best 4": ({}, {}, 4),
    "best 64": ({}, {}, 64),
    "all entries": ({}, {}, 10**9),
    "look back 2048": ({}, {"look_back": 2048}, 16),
    "look back all": ({}, {"look_back": None}, 16),
    "overlap a quarter": ({"window_overlap": 252}, {}, 16),
    "overlap three quarters": ({"window_overlap": 764}, {}, 16),
    "window 2048": ({"window": 2048}, {}, 16),
    "trained": ({"adapter": "usual"}, {}, None),
    "trained best 16": ({"adapter": "usual"}, {}, 16),
}


def read(text: str, loaded, folder: Path, **options):
    from longfocus.memory.book import StoredBook
    from longfocus.reading.documents import Document
    from longfocus.reading.reader import read_steps

    for _ in read_steps(Document("text", text, (0, len(text))), loaded, folder, **options):
        pass
    return StoredBook.open(folder)


def plant(text: str) -> str:
    paragraphs = text.split("\n\n")
    places = [int(len(paragraphs) * (number + 0.5) / len(FACTS) * 0.9) for number in range(len(FACTS))]
    for number in reversed(range(len(FACTS))):
        paragraphs.insert(places[number], FACTS[number][0])
    return "\n\n".join(paragraphs)


def loss(loaded, state, ids: list[int], first: int) -> float:
    """Mean negative log-likelihood of ids[first:]."""
    places = torch.arange(first - 1, len(ids) - 1)
    with torch.inference_mode():
        output = loaded.model(
            torch.tensor([ids]),
            past_key_values=state,
            use_cache=True,
            last_context_length=len(ids),
            logits_to_keep=places,
        )
    chosen = output.logits[0].float().log_softmax(-1).gather(1, torch.tensor(ids[first:])[:, None])
    return -float(chosen.mean())


def measure(text: str, name: str, adapter: str) -> None:
    from longfocus.asking.generation import Sampling
    from longfocus.asking.session import Session
    from longfocus.loading.load import load

    model_options, read_options, top_k = SETTINGS[name]
    if "adapter" in model_options:
        model_options = {"adapter": adapter}
    loaded = load(**{"adapter": None, **model_options})
    encode = loaded.tokenizer
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for number, start in enumerate((0, len(text) // 3, len(text) // 2)):
            ids = encode(text[start : start + 60_000], verbose=False)["input_ids"]
            book = read(encode.decode(ids[:8192]), loaded, Path(folder, str(number)), **read_options)
            losses.append(loss(loaded, Session(book, loaded, top_k).state, ids[8191 : 8192 + 448], 1))
        session = Session(read(plant(text[:80_000]), loaded, Path(folder, "facts"), **read_options), loaded, top_k)
        hits = torch.zeros(4, dtype=torch.long)
        known = 0.0
        for fact, question, key in FACTS:
            found = [fact[8:40] in passage.text for passage in session.find(question, 3)]
            cited = [
                fact[8:40] in c.text for c in session.ask(question, sampling=Sampling(max_new_tokens=20)).citations
            ]
            hits += torch.tensor([any(found[:1]), any(found), any(cited[:1]), any(cited)])
            before = encode(fact[: fact.index(key)].rstrip(), verbose=False)["input_ids"]
            prompt = session.question_ids(question) + before
            known += loss(loaded, session.state, prompt + encode(" " + key)["input_ids"], len(prompt)) / len(FACTS)
    perplexity = torch.tensor(losses).mean().exp()
    row = " ".join(f"{int(hit):>7}" for hit in hits)
    print(f"{name:>24} {perplexity:>11.2f} {row} {known:>9.2f}", flush=True)


def main() -> None:
    from longfocus.reading.documents import load_document

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--adapter", default="usual")
    args = parser.parse_args()
    document = load_document(args.book)
    print(f"{'setting':>24} {'perplexity':>11} {'find@1':>7} {'find@3':>7} {'cite@1':>7} {'cite@3':>7} {'key nll':>9}")
    for name in args.settings.split(","):
        measure(document.text[slice(*document.body)], name, args.adapter)


if __name__ == "__main__":
    main()
