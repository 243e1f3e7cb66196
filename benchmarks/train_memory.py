"""One LoRA step on one sequence with full attention: the most memory resident and the time, against the length.

    python benchmarks/train_memory.py [--lengths 4096,16384,100000] [--ways trainer,ours] [--plot FILE.png]

Measured is the most memory that a process had resident, from its start to the end of one step (forward, backward,
AdamW), and the time of that step. Each point is a process of its own, on one thread. Weights are bfloat16, LoRA is
Anima's (rank 32 in every linear layer), its positions are stretched to the length, and every token has a label.
    trainer       transformers' Trainer as it comes: what layers make is stored for their gradients
    checkpointed  transformers' Trainer with gradient_checkpointing=True
    ours          layers computed anew as well; the loss, the MLPs, norms and projections over pieces of the sequence,
                  and large pages
    disk          as ours, with what each layer takes in a folder (--folder) in place of memory
Large pages are torch's THP_MEM_ALLOC_ENABLE=1 (Linux). Without it glibc holds on to blocks that were freed, as it cuts
them from one heap up to 32 MiB: pieces then take as much memory as the whole, though half of it is not in use.

Lengths go up, for each way, as long as what the shorter ones lead to fits the memory that is available. Where it does
not, or a process ends for want of memory, that is printed, with what two measured points or more lead to: memory grows
with the length, time with the length and its square. The plot has the measured points alone.
"""

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from pathlib import Path

from own_process import QUIET, tell, told_by

WAYS = ("trainer", "checkpointed", "ours", "disk")
TRAINER = ("trainer", "checkpointed")
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
    ids = torch.randint(3, config.vocab_size, (1, length))
    if way in TRAINER:
        seconds, loss = trainer_step(model, ids, folder, checkpointing=way == "checkpointed")
        return {"length": length, "gigabytes": most_gigabytes(), "seconds": seconds, "loss": loss}
    bare.activation_checkpointing_enable()
    run_in_pieces(model, tokens, POINTWISE)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    start = time.perf_counter()
    with saved_on_disk(folder) if way == "disk" else contextlib.nullcontext():
        loss = compute_loss(model, {"input_ids": ids, "labels": ids})
    loss.backward()
    optimizer.step()
    seconds = time.perf_counter() - start
    return {"length": length, "gigabytes": most_gigabytes(), "seconds": seconds, "loss": loss.item()}


def trainer_step(model, ids, folder: Path, *, checkpointing: bool) -> tuple[float, float]:
    """Seconds and loss of one step of transformers' Trainer, told nothing but to take one and to write nothing."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=1,
        gradient_checkpointing=checkpointing,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    rows = [{"input_ids": ids[0], "labels": ids[0]}]
    done = Trainer(model=model, args=arguments, train_dataset=rows).train()
    return done.metrics["train_runtime"], done.training_loss


def most_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def measured(way: str, length: int, arguments: argparse.Namespace) -> dict[str, float] | None:
    """A point; None where there was too little memory for it."""
    options = ["--point", way, "--lengths", str(length), "--model", str(arguments.model)]
    options += ["--folder", str(arguments.folder), "--tokens", str(arguments.tokens)]
    pages = {} if way in TRAINER else {"THP_MEM_ALLOC_ENABLE": "1"}  # torch looks at it once, when it is imported
    try:
        return told_by(__file__, *options, **QUIET, OMP_NUM_THREADS="1", **pages)
    except RuntimeError as error:
        if any(words in str(error) for words in ("out of memory", "can't allocate memory", "MemoryError")):
            return None
        raise SystemExit(f"{way} at {length} tokens {error}") from None


def available_gigabytes() -> float:
    from longfocus.planning.machine import memory_here

    here = memory_here()
    return float("inf") if here is None else here.available / 1e9


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
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="of sequences, in tokens")
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
    lengths = sorted(int(length) for length in arguments.lengths.split(","))
    if arguments.point:
        tell(point(arguments.point, lengths[0], arguments.model, arguments.folder, arguments.tokens))
        return
    print("Anima's figures, calculated:")
    for name, figure in anima_figures().items():
        print(f"  {name:<42} {figure:9.2f}")
    found: dict[str, list[dict[str, float]]] = {}
    print(f"\n{'way':<12} {'tokens':>8} {'GB':>7} {'seconds':>9} {'loss':>9}")
    for way in arguments.ways.split(","):
        found[way] = points = []
        fits = True
        for length in lengths:
            memory, seconds = led_to(points, length) if len(points) > 1 else (0.0, 0.0)
            room = available_gigabytes()
            fits = fits and memory <= room
            new = measured(way, length, arguments) if fits else None
            if new is not None:
                points.append(new)
                line = f"{new['gigabytes']:7.2f} {new['seconds']:9.1f} {new['loss']:9.4f}"
            else:
                led = f"{memory:7.2f} {seconds:9.1f}           led to, not measured; " if len(points) > 1 else ""
                line = f"{led}does not fit the {room:.1f} GB that are available"
                fits = False
            print(f"{way:<12} {length:>8} {line}", flush=True)
    draw(found, arguments.plot)


if __name__ == "__main__":
    main()
