"""Training speed: a cross-batch step against a plain language model's, on the same model and tokens.

    python benchmarks/train.py [--rows 8] [--row-tokens 512] [--rank 0] [--subjects cross-batch,plain,transformers]

Subjects, each in a process of its own, one after another, so that peak memory is its own:
    plain         our model, each row for itself; the loss without whole logits
    transformers  LlamaForCausalLM with the loss it comes with
    cross-batch   `FotLesson`: in memory layers rows see rows before them
    recall        `RecallLesson`: documents of a pack's length are read, and asked in 128 tokens
    products      what the matrix products of the cross-batch step alone would take, each shape run by itself in
                  bfloat16 on tensors of its own; and its attention kernels likewise

A step is forward, backward and AdamW; tokens are drawn. Weights are float32 under autocast to bfloat16, or bfloat16
with a LoRA adapter where --rank is not 0. Prints the median step's tokens per second and its spread, peak resident
memory, and each subject's speed over that of `plain`.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from own_process import QUIET, tell, told_by

ASKED = 128


def student_of(loaded_model, rank: int):
    from longfocus.training.lessons import ATTENTION_PROJECTIONS, with_lora

    return with_lora(loaded_model, rank, ATTENTION_PROJECTIONS) if rank else loaded_model.requires_grad_(True)


def our_model(arguments, **memory):
    from longfocus.loading.layer_numbers import layer_numbers
    from longfocus.loading.load import load

    layers = layer_numbers(arguments.memory_layers)
    dtype = None if arguments.rank else "float32"
    return load(arguments.model, mem_layers=layers, dtype=dtype, **memory).model


def drawn(arguments, vocabulary: int, rows: int, length: int):
    import torch

    return torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))


def prepared(subject: str, arguments):
    """What takes a step's loss, and the weights."""
    import torch

    from longfocus.training.crossbatch import CrossBatch
    from longfocus.training.fot import FotLesson, Growth
    from longfocus.training.lessons import ATTENTION_PROJECTIONS, RecallLesson
    from longfocus.training.losses import compute_loss_per_row

    rows, length, pack = arguments.rows, arguments.row_tokens, arguments.pack
    if subject == "transformers":
        from peft import get_peft_model
        from transformers import LlamaForCausalLM

        from longfocus.loading.default_model import default_model_dir
        from longfocus.training.extend import lora

        dtype = torch.bfloat16 if arguments.rank else torch.float32
        bare = LlamaForCausalLM.from_pretrained(arguments.model or default_model_dir(), dtype=dtype)
        model = bare
        if arguments.rank:
            adapters = lora(arguments.rank, arguments.rank, target_modules=ATTENTION_PROJECTIONS)
            model = get_peft_model(bare, adapters)
        ids = drawn(arguments, bare.config.vocab_size, rows, length)
        return lambda: model(ids, labels=ids, use_cache=False).loss, model
    if subject == "recall":
        model = our_model(arguments)
        lesson = RecallLesson(student_of(model, arguments.rank)).train()
        documents = drawn(arguments, model.config.vocab_size, rows // pack, pack * length - ASKED)
        asked = drawn(arguments, model.config.vocab_size, rows // pack, ASKED)
        return lambda: lesson(documents, asked, asked)["loss"], lesson
    whole = {"window": length, "window_overlap": 0, "sink_tokens": 0, "last_context_length": length}
    model = our_model(arguments, **whole)
    student = student_of(model, arguments.rank).train()
    ids = drawn(arguments, model.config.vocab_size, rows, length)
    if subject == "plain":
        return lambda: compute_loss_per_row(student, {"input_ids": ids, "labels": ids}), student
    lesson = FotLesson(student, partial(CrossBatch, packing=pack), Growth.of(arguments.growth)).train()
    return lambda: lesson(ids, ids)["loss"], lesson


def measured(subject: str, arguments) -> dict:
    """A subject's steps in this process."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    loss_of, module = prepared("cross-batch" if subject == "products" else subject, arguments)
    optimizer = torch.optim.AdamW([weight for weight in module.parameters() if weight.requires_grad], lr=1e-5)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    if subject == "products":
        return products_of(step)
    loss = step()  # the first step makes the optimizer's state
    seconds = []
    for _ in range(arguments.steps):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "peak": most, "loss": loss}


PRODUCTS = ("aten.mm.", "aten.addmm.", "aten.bmm.", "aten.baddbmm.", "mkldnn_linear", "aten.linear.")


def products_of(step) -> dict:
    """Seconds that a step's matrix products and its attention kernels take by themselves, the fastest of three."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    calls = Counter()

    def described(value, dtype):
        if isinstance(value, torch.Tensor):
            return "tensor", tuple(value.shape), value.stride(), dtype or value.dtype
        return tuple(value) if isinstance(value, list) else value

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name, kwargs = str(function), kwargs or {}
            if name.startswith(PRODUCTS) or "scaled_dot_product" in name:
                dtype = torch.bfloat16 if name.startswith(PRODUCTS) else None
                named = tuple((key, described(value, dtype)) for key, value in sorted(kwargs.items()))
                calls[function, tuple(described(value, dtype) for value in args), named] += 1
            return function(*args, **kwargs)

    def made(value):
        if not (isinstance(value, tuple) and value[:1] == ("tensor",)):
            return value
        _, shape, stride, dtype = value
        extent = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        return torch.randn(extent).to(dtype).as_strided(shape, stride)

    with Recorder():
        step()
    sums = {"products": 0.0, "attention": 0.0}
    for (function, given, named), times in calls.items():
        args, kwargs = [made(value) for value in given], {key: made(value) for key, value in named}
        best = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            function(*args, **kwargs)
            best = min(best, time.perf_counter() - begun)
        sums["attention" if "scaled_dot_product" in str(function) else "products"] += best * times
    return {**sums, "calls": sum(calls.values())}


SUBJECTS = ("plain", "transformers", "cross-batch", "recall", "products")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder; without it, the default model")
    parser.add_argument("--subjects", default=",".join(SUBJECTS))
    parser.add_argument("--memory-layers", default="10,14,18,22")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--row-tokens", type=int, default=512)
    parser.add_argument("--pack", type=int, default=4)
    parser.add_argument("--growth", default="3", help="rows seen")
    parser.add_argument("--rank", type=int, default=0, help="of LoRA; 0 trains the whole model")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one", choices=SUBJECTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        tell(measured(arguments.one, arguments))
        return
    tokens, speeds = arguments.rows * arguments.row_tokens, {}
    print(f"{tokens} tokens a step, {arguments.threads} threads")
    print(f"{'subject':<14} {'tokens/s':>9} {'spread':>15} {'peak MiB':>9} {'of plain':>9}")
    for subject in arguments.subjects.split(","):
        try:
            # large pages: read by torch once, when it is imported; `longfocus train` sets it too
            found = told_by(__file__, *sys.argv[1:], "--one", subject, **QUIET, THP_MEM_ALLOC_ENABLE="1")
        except RuntimeError as error:
            print(f"{subject:<14} {error}")
            continue
        if subject == "products":
            both = found["products"] + found["attention"]
            speeds[subject] = tokens / both
            print(f"{subject:<14} {tokens / both:>9.0f} {found['calls']:>9} calls, of {both:.2f} s ", end="")
            print(f"{found['attention']:.2f} s are attention kernels")
            continue
        each = sorted(tokens / seconds for seconds in found["seconds"])
        speeds[subject] = statistics.median(each)
        share = f"{speeds[subject] / speeds['plain']:.2f}" if "plain" in speeds else ""
        spread = f"{each[0]:.0f} to {each[-1]:.0f}"
        print(
            f"{subject:<14} {speeds[subject]:>9.0f} {spread:>15} {found['peak'] / 2**20:>9.0f} {share:>9}", flush=True
        )
    if {"products", "cross-batch"} <= speeds.keys():
        share = speeds["cross-batch"] / speeds["products"]
        print(f"{share:.0%} of the cross-batch step are matrix products and attention kernels")


if __name__ == "__main__":
    main()
