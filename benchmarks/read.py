"""Reading speed: ours against transformers' full attention and llama.cpp, on the same model and tokens.

    python benchmarks/read.py BOOK.txt [--lengths 4096,16384,32768] [--subjects longfocus,transformers,llamacpp]

Each subject runs in a process of its own, one after another, so that peak memory is its own. llama.cpp needs the wheel
`xllamacpp` and a GGUF file of the model (--gguf). Prints tokens per second, peak resident memory, and ratios.

With --fit, ours reads so many tokens more, and the others are told as they would be there: time per token grows as a
line with full attention, fitted through the lengths that were measured.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from fits import line_at
from own_process import tell, told_by

THREADS = os.cpu_count() or 1


def book_ids(path: str, tokenizer, length: int) -> list[int]:
    from longfocus.reading.documents import load_document

    document = load_document(path)
    ids = tokenizer(document.text[slice(*document.body)], verbose=False)["input_ids"]
    while len(ids) < length:
        ids = ids + ids
    return ids[:length]


def run_longfocus(book: str, length: int, _: str | None) -> dict:
    """The whole job: tokens in, a Book on disk out. Also tells what its products and attention alone would take."""
    import torch

    from longfocus.loading.load import load
    from longfocus.reading.documents import Document
    from longfocus.reading.reader import read_steps

    torch.set_num_threads(THREADS)
    loaded = load()
    text = loaded.tokenizer.decode(book_ids(book, loaded.tokenizer, length))
    with tempfile.TemporaryDirectory() as folder:
        warm = Document("warm", text[:6000], (0, 6000))
        for _ in read_steps(warm, loaded, Path(folder, "warm")):
            pass
        for step in read_steps(Document("book", text, (0, len(text))), loaded, Path(folder, "book")):
            last = step
        size = sum(file.stat().st_size for file in Path(folder, "book").iterdir())
    return {
        "tokens": last.total,
        "seconds": last.seconds,
        "disk_bytes": size,
        **core_seconds(loaded, text),
    }


def core_seconds(loaded, text: str) -> dict[str, float]:
    """Seconds that the matrix products and the attention of reading would take on their own.

    Those of one window in the middle of the text are recorded with their tensors and run again by themselves; the
    fastest of five runs counts, times the number of windows. So for the lower layers, and for the upper ones, which run
    over the last windows only.

    As "core_seconds" with products as they run, some of which take an activation, a gate or a residual along; as
    "plain_seconds" with plain products of the same shapes in place of those.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from longfocus.memory.late import LateState, read_window, tokens_that_matter, whole_state
    from longfocus.memory.recent import RecentMemory

    model = loaded.model.model
    config = model.config
    calls = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if any(part in str(function) for part in ("linear", "mm.", "matmul", "scaled_dot_product")):
                calls.append((function, args, kwargs or {}))
            return function(*args, **(kwargs or {}))

    def recorded(run) -> tuple[float, float]:
        calls.clear()
        with Recorder():
            run()
        return fastest(calls), fastest([plain_product(*call) for call in calls])

    ids = torch.tensor([loaded.tokenizer(text, verbose=False)["input_ids"]])
    pieces = ids.split(config.stride, dim=1)
    empty = torch.empty((1, config.num_key_value_heads, 0, config.head_dim), dtype=config.memory_dtype)
    memories = {layer: RecentMemory.of(empty, empty.clone(), loaded.habits.look_back) for layer in config.mem_layers}
    state = LateState.start(config, memories)
    late = min(len(pieces), -(-tokens_that_matter(config) // config.stride) + 1)
    with torch.inference_mode():
        for piece in pieces[:4]:
            state = read_window(model, piece, state)
        lower = recorded(lambda: read_window(model, pieces[4], state))
        upper = LateState(state.tokens, state.lower, whole_state(model, state), state.waiting[-1:])
        above = recorded(lambda: whole_state(model, upper))
    sums = [lower[way] * len(pieces) + above[way] * late for way in range(2)]
    return dict(zip(("core_seconds", "plain_seconds"), sums, strict=True))


def plain_product(function, args: tuple, kwargs: dict) -> tuple:
    """A call in place of one that takes what follows a product along: the product alone. Others stay as they are."""
    import torch

    if "_linear_pointwise" not in str(function):
        return function, args, kwargs
    # (states, weights, bias, ...), or with what is added or multiplied behind the states
    states, weight, bias = args[:3] if "binary" not in str(function) else (args[0], *args[2:4])
    return torch.ops.aten.linear.default, (states, weight, bias), {}


def fastest(calls: list[tuple]) -> float:
    """Seconds that the calls take one after the other, the best of five times."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for function, args, kwargs in calls:
            function(*args, **kwargs)
        best = min(best, time.perf_counter() - begun)
    return best


def run_transformers(book: str, length: int, _: str | None) -> dict:
    """`LlamaForCausalLM` with full attention, the whole text in one call, logits of the last place only."""
    import torch
    from transformers import LlamaForCausalLM

    from longfocus.loading.load import load

    torch.set_num_threads(THREADS)
    loaded = load()
    model = LlamaForCausalLM.from_pretrained(loaded.folder, dtype=loaded.model.dtype).eval()
    ids = torch.tensor([book_ids(book, loaded.tokenizer, length)])
    with torch.inference_mode():
        model(ids[:, :1024], logits_to_keep=1)
        begun = time.perf_counter()
        model(ids, logits_to_keep=1)
        return {"tokens": length, "seconds": time.perf_counter() - begun}


def run_llamacpp(book: str, length: int, gguf: str | None) -> dict:
    """llama.cpp, reading the same text with its own context of that length."""
    from llamacpp import llamacpp

    from longfocus.loading.load import load

    tokenizer = load().tokenizer
    text = tokenizer.decode(book_ids(book, tokenizer, length - 64))
    with llamacpp(gguf, length + 256, THREADS) as server:
        reply = server.handle_completions({"prompt": text, "max_tokens": 1, "temperature": 0.0, "cache_prompt": False})
    timings = reply["timings"]
    return {"tokens": timings["prompt_n"], "seconds": timings["prompt_ms"] / 1000}


SUBJECTS = {"longfocus": run_longfocus, "transformers": run_transformers, "llamacpp": run_llamacpp}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book")
    parser.add_argument("--lengths", default="4096,16384,32768")
    parser.add_argument("--subjects", default="longfocus,transformers")
    parser.add_argument("--gguf", help="the model as GGUF, for llama.cpp")
    parser.add_argument("--fit", type=int, help="tokens at which the others are fitted, not measured")
    parser.add_argument("--one", nargs=2, metavar=("SUBJECT", "LENGTH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        result = SUBJECTS[args.one[0]](args.book, int(args.one[1]), args.gguf)
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        tell(result)
        return
    print(f"{'tokens':>8} {'subject':>14} {'tokens/s':>10} {'peak MiB':>9} {'ours is':>9}")
    each: dict[str, dict[int, float]] = {}
    ours = 0.0
    for length in [*map(int, args.lengths.split(",")), *([args.fit] if args.fit else [])]:
        ours = 0.0
        for subject in args.subjects.split(","):
            if length == args.fit and subject != "longfocus":
                speed = 1 / line_at(each[subject], length)
                print(
                    f"{length:>8} {subject:>14} {speed:>10.1f} {'fitted':>9} {f'{ours / speed:.1f} x':>9}", flush=True
                )
                continue
            more = ["--gguf", args.gguf] if args.gguf else []
            try:
                result = told_by(__file__, args.book, "--one", subject, str(length), *more)
            except RuntimeError as error:
                print(f"{length:>8} {subject:>14} {error}", flush=True)
                continue
            speed = result["tokens"] / result["seconds"]
            ours = speed if subject == "longfocus" else ours
            each.setdefault(subject, {})[length] = 1 / speed
            ratio = f"{ours / speed:.1f} x" if subject != "longfocus" and ours else ""
            print(f"{length:>8} {subject:>14} {speed:>10.0f} {result['peak_mib']:>9.0f} {ratio:>9}", flush=True)
            if "core_seconds" in result:
                whole, plain = (result[name] / result["seconds"] for name in ("core_seconds", "plain_seconds"))
                told = f"{whole:.0%} of its time are matrix products and attention, as they run; {plain:.0%} by plain"
                print(f"{'':>8} {told} products of the same shapes", flush=True)


if __name__ == "__main__":
    main()
