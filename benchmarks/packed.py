"""What packed weights cost in quality, and from how many tokens on they are no longer quicker.

    python benchmarks/packed.py BOOK.txt [--windows 8] [--prompts 24] [--tokens 32]
    python benchmarks/packed.py --products

The loss is the mean over the second half of each window of 1,024 tokens of a text, without memory. Answers are greedy
continuations of pieces of the text: how many are the same to the last token as with the weights as they are, and how
many tokens on average before the first that differs. "all int4" has 4 bits in what an adapter changed too.
"""

import argparse
import time

KINDS = ("bfloat16", "int8", "int4", "all int4")
WINDOW = 1024


def models() -> dict:
    from longfocus.loading.load import load
    from longfocus.loading.packed_weights import for_writing

    loaded = load()
    made = {"bfloat16": loaded}
    made |= {kind: for_writing(loaded, kind) for kind in ("int8", "int4")}
    made["all int4"] = for_writing(loaded, "int4", finer=())
    return made


def always_packed(model) -> None:
    """Let any number of tokens go through packed matrices."""
    from longfocus.loading import packed_weights

    packed_weights.FEW[8] = 1 << 30
    for layer in model.model.layers:
        if isinstance(layer, packed_weights.PackedLayer):
            layer.few = 1 << 30


def quality(book: str, windows: int, prompts: int, tokens: int) -> None:
    import torch

    from longfocus.reading.documents import load_document

    document = load_document(book)
    made = models()
    text = document.text[slice(*document.body)]
    ids = torch.tensor(made["bfloat16"].tokenizer(text, verbose=False)["input_ids"])
    starts = torch.linspace(0, len(ids) - WINDOW, windows).long().tolist()
    begins = torch.linspace(0, len(ids) - 200, prompts).long().tolist()
    usual: list[list[int]] = []
    print(f"{'weights':>10} {'packed MiB':>11} {'loss':>8} {'perplexity':>11} {'same answers':>13} {'same tokens':>12}")
    for kind, loaded in made.items():
        model = loaded.model
        answers = [continued(model, ids[begin : begin + 128], tokens) for begin in begins]
        always_packed(model)
        losses = [loss(model, ids[start : start + WINDOW]) for start in starts]
        usual = usual or answers
        mean = sum(losses) / len(losses)
        alike = [same(one, other) for one, other in zip(answers, usual, strict=True)]
        whole = sum(count == tokens for count in alike)
        from longfocus.loading.packed_weights import packed_bytes

        print(
            f"{kind:>10} {packed_bytes(model) / 2**20:>11.0f} {mean:>8.4f} {2.718281828**mean:>11.2f} "
            f"{whole:>10}/{prompts} {sum(alike) / prompts:>9.1f}/{tokens}",
            flush=True,
        )


def loss(model, ids) -> float:
    """Of the second half of a window."""
    import torch
    import torch.nn.functional as F

    half = WINDOW // 2
    with torch.inference_mode():
        states = model.model(ids[None], last_context_length=WINDOW, use_cache=True).last_hidden_state[0, half - 1 : -1]
        return float(F.cross_entropy(model.lm_head(states).float(), ids[half:]))


def continued(model, ids, tokens: int) -> list[int]:
    import torch

    written: list[int] = []
    with torch.inference_mode():
        given = ids[None]
        state = None
        for _ in range(tokens):
            output = model(
                given, past_key_values=state, use_cache=True, last_context_length=given.shape[1], logits_to_keep=1
            )
            state, given = output.past_key_values, output.logits[:, -1:].argmax(-1)
            written.append(int(given))
    return written


def same(one: list[int], other: list[int]) -> int:
    """Tokens before the first that differs."""
    differing = (place for place, (left, right) in enumerate(zip(one, other, strict=True)) if left != right)
    return next(differing, len(one))


def products() -> None:
    """Processor time of one layer's products by rows, on one thread; the fastest of several runs."""
    import torch

    from longfocus.loading.packed_matrix import PackedMatrix

    torch.set_num_threads(1)
    shapes = ((960, 576), (576, 576), (3072, 576), (576, 1536))
    layers = [[torch.randn(shape).bfloat16() for shape in shapes] for _ in range(6)]
    packed = {bits: [[PackedMatrix(weight, bits) for weight in layer] for layer in layers] for bits in (8, 4)}
    print(f"{'rows':>5} {'bfloat16':>9} {'int8':>9} {'int4':>9}   ms for the linear layers of 30 layers")
    for rows in (1, 2, 4, 6, 8, 12, 16, 32):
        given = {576: torch.randn(rows, 576).bfloat16(), 1536: torch.randn(rows, 1536).bfloat16()}

        def plain(given=given) -> None:
            for layer in layers:
                for weight in layer:
                    torch.nn.functional.linear(given[weight.shape[1]], weight)

        def with_packed(bits: int, given=given) -> None:
            for layer in packed[bits]:
                for matrix in layer:
                    matrix(given[matrix.columns])

        with torch.inference_mode():
            took = [fastest(plain), *(fastest(lambda bits=bits: with_packed(bits)) for bits in (8, 4))]
        print(f"{rows:>5} " + " ".join(f"{seconds * 5e3:>9.1f}" for seconds in took), flush=True)


def fastest(run, times: int = 7) -> float:
    seconds = []
    for _ in range(times):
        begun = time.thread_time()
        run()
        seconds.append(time.thread_time() - begun)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book", nargs="?")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--products", action="store_true")
    args = parser.parse_args()
    if args.products:
        products()
    elif args.book:
        quality(args.book, args.windows, args.prompts, args.tokens)
    else:
        parser.error("name a text, or --products")


if __name__ == "__main__":
    main()
