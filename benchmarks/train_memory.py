"""One LoRA step on one sequence with full attention: the most memory resident and the time, against the length.

    python benchmarks/train_memory.py [--lengths 4096,8192,16384] [--ways plain,ours,disk] [--plot FILE.png]

Each point is a process of its own, on one thread. Weights are bfloat16, LoRA is Anima's (rank 32 in every linear
layer), its positions are stretched to the length, and every token has a label.
    plain   transformers' model and loss with activation checkpointing, as its Trainer runs them
    ours    the same with the loss, the MLPs, norms and projections over pieces of the sequence, and large pages
    disk    as ours, with what activation checkpointing keeps in a folder (--folder) in place of memory
Large pages are torch's THP_MEM_ALLOC_ENABLE=1 (Linux). Without it glibc holds on to blocks that were freed, as it cuts
them from one heap up to 32 MiB: pieces then take as much memory as the whole, though half of it is not in use.

Behind the measured points stands what they lead to at other lengths: memory grows with the length, time with the
length and its square.
"""

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from pathlib import Path

from own_process import QUIET, tell, told_by

WAYS = ("plain", "ours", "disk")
LENGTHS = (4096, 8192, 16384, 32768, 65536, 100_000)


def anima_figures(length: int = 100_000, heads: int = 32, head_dim: int = 128) -> dict[str, float]:
    """The two figures with which Anima 100K explained flash attention, and what they stand for.

    Stock attention makes a score for each head and pair of tokens: 32 x 100,000 x 100,000 x 2 bytes = 640 GB, which is
    596 GiB ("596 GB") for one layer of LLaMA 7B. With blocks of 128 keys it is 32 x 100,000 x 128 x 2 bytes, which is
    781 MiB ("782 MB"). Both are right as sums. But transformers' eager attention makes a float32 softmax besides,
    twice as large; and flash attention never has those blocks in memory: besides its output, which happens to be of
    the same size (head_dim is 128 too), it keeps one float32 for each head and token, 12 MiB.
    """
    scores = heads * length * length * 2
    return {
        "scores of one layer, GiB": scores / 2**30,
        "their softmax in float32, GiB": 2 * scores / 2**30,
        "blocks of 128 keys, MiB": heads * length * 128 * 2 / 2**20,
        "output of the layer's attention, MiB": heads * length * head_dim * 2 / 2**20,
        "what flash attention keeps besides, MiB": heads * length * 4 / 2**20,
    }


def point(way: str, length: int, model_folder: Path, folder: Path, tokens: int) -> dict[str, float]:
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from longfocus.training.chunked import POINTWISE, run_in_pieces
    from longfocus.training.extend import lora, position_interpolation
    from longfocus.training.losses import compute_loss
    from longfocus.training.offload import saved_on_disk

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = position_interpolation(AutoConfig.from_pretrained(model_folder), length)
    bare = AutoModelForCausalLM.from_pretrained(model_folder, config=config, dtype=torch.bfloat16)
    model = get_peft_model(bare, lora()).train()
    bare.activation_checkpointing_enable()
    if way != "plain":
        run_in_pieces(model, tokens, POINTWISE)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    ids = torch.randint(3, config.vocab_size, (1, length))
    inputs = {"input_ids": ids, "labels": ids}
    start = time.perf_counter()
    with saved_on_disk(folder) if way == "disk" else contextlib.nullcontext():
        loss = model(**inputs, use_cache=False).loss if way == "plain" else compute_loss(model, inputs)
    loss.backward()
    optimizer.step()
    seconds = time.perf_counter() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"length": length, "gigabytes": most / 1e9, "seconds": seconds, "loss": loss.item()}


def measured(way: str, length: int, arguments: argparse.Namespace) -> dict[str, float]:
    options = ["--point", way, "--lengths", str(length), "--model", str(arguments.model)]
    options += ["--folder", str(arguments.folder), "--tokens", str(arguments.tokens)]
    pages = {} if way == "plain" else {"THP_MEM_ALLOC_ENABLE": "1"}  # torch looks at it once, when it is imported
    try:
        return told_by(__file__, *options, **QUIET, OMP_NUM_THREADS="1", **pages)
    except RuntimeError as error:
        raise SystemExit(f"{way} at {length} tokens {error}") from None


def led_to(points: list[dict[str, float]], length: int) -> tuple[float, float]:
    """Gigabytes a + b n and seconds a n + b n^2, by least squares over the measured points."""
    import numpy as np

    lengths = np.array([point["length"] for point in points])
    memory = np.polynomial.Polynomial.fit(lengths, [point["gigabytes"] for point in points], 1)
    slopes = [point["seconds"] / point["length"] for point in points]
    return float(memory(length)), float(np.polynomial.Polynomial.fit(lengths, slopes, 1)(length) * length)


def draw(found: dict[str, list[dict[str, float]]], file: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        print("No plot: matplotlib is not installed.")
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, (key, unit) in zip(axes, (("gigabytes", "GB resident"), ("seconds", "seconds a step")), strict=True):
        for way, points in found.items():
            axis.plot([point["length"] for point in points], [point[key] for point in points], "o-", label=way)
        axis.set(xlabel="tokens", ylabel=unit, ylim=(0, None))
        axis.legend()
    figure.savefig(file, dpi=150)
    print(f"Drawn in {file}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="4096,8192,16384", help="of sequences, in tokens")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--model", type=Path, help="a folder; without it, the default model")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for `disk`, on a real disk")
    parser.add_argument("--tokens", type=int, default=2048, help="of a piece")
    parser.add_argument("--plot", type=Path, default=Path("train_memory.png"))
    parser.add_argument("--point", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.model is None:
        from longfocus.loading.default_model import default_model_dir

        arguments.model = default_model_dir()
    lengths = [int(length) for length in arguments.lengths.split(",")]
    if arguments.point:
        tell(point(arguments.point, lengths[0], arguments.model, arguments.folder, arguments.tokens))
        return
    print("Anima's figures, calculated:")
    for name, figure in anima_figures().items():
        print(f"  {name:<42} {figure:9.2f}")
    found: dict[str, list[dict[str, float]]] = {}
    print(f"\n{'way':<6} {'tokens':>8} {'GB':>7} {'seconds':>9} {'loss':>9}")
    for way in arguments.ways.split(","):
        found[way] = []
        for length in lengths:
            new = measured(way, length, arguments)
            found[way].append(new)
            print(f"{way:<6} {length:>8} {new['gigabytes']:7.2f} {new['seconds']:9.1f} {new['loss']:9.4f}", flush=True)
        for length in LENGTHS if len(lengths) > 1 else ():
            if length > max(lengths):
                memory, seconds = led_to(found[way], length)
                print(f"{way:<6} {length:>8} {memory:7.2f} {seconds:9.1f}           (led to, not measured)")
    draw(found, arguments.plot)


if __name__ == "__main__":
    main()
