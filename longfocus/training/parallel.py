"""Several processes, started by `torchrun` or `accelerate launch`: what each does, and what cannot be.

Data parallel (DDP) is what happens unless something else is asked for: every process has the model, takes its own
batches, and gradients are averaged. *Sharded* (FSDP2) is the same with the weights divided among the processes. With
*context parallelism* a group of processes shares one batch, each holding a piece of every row, and keys and values go
around in a ring. transformers, accelerate and torch do all of it; here is what they need to be told.

The batches of a data set count as one sequence, of which process i takes those at i, i + W, i + 2W and so on, W
processes in all (those that share batches count as one). So W processes do in one step what one does with
`gradient_accumulation_steps` W times as large.
"""

from __future__ import annotations

import os
from typing import Any

from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    ParallelismConfig,
)
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce
from transformers import TrainingArguments

from longfocus.errors import RequestError
from longfocus.training.examples import IGNORED


def processes(context_parallel: int = 1) -> tuple[int, int]:
    """Which share of the data this process takes, from 0, and how many shares there are.

    That is `rank` and `world_size` of a `PackedDataset`. `context_parallel` processes in a row share one.
    """
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return rank // context_parallel, count // context_parallel


def parallel_arguments(*, shard: bool = False, context_parallel: int = 1) -> dict[str, Any]:
    """What transformers' `TrainingArguments` need to be told, besides what else they are.

    Args:
        shard: Whether weights are divided among the processes.
        context_parallel: How many processes share a batch; more than 1 implies `shard`, as in accelerate.

    Raises:
        RequestError: It does not go with the number of processes.
    """
    count = processes()[1]
    if context_parallel < 1 or count % context_parallel:
        raise RequestError(
            f"{context_parallel} processes were to share a batch, and there are {count}. Start a multiple of that "
            "(torchrun --nproc_per_node), or ask for fewer."
        )
    if context_parallel == 1 and not shard:
        return {}
    if count == 1:
        raise RequestError("Weights were to be divided among processes, and there is one. Start more with torchrun.")
    arguments: dict[str, Any] = {"fsdp": True, "fsdp_config": {"version": 2}}
    if context_parallel > 1:
        shares = count // context_parallel
        arguments["parallelism_config"] = ParallelismConfig(dp_shard_size=shares, cp_size=context_parallel)
    return arguments


def check(lesson: Any, arguments: TrainingArguments) -> None:
    """Refuse what cannot be done, before anything is computed.

    Raises:
        RequestError: One process sees several GPUs, or context parallelism is asked for where it is not possible.
    """
    if arguments.n_gpu > 1:
        raise RequestError(
            f"One process sees {arguments.n_gpu} GPUs. Start one for each (torchrun --nproc_per_node "
            f"{arguments.n_gpu}), or show it one (CUDA_VISIBLE_DEVICES=0)."
        )
    config = arguments.parallelism_config
    if config is None and os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG", "false").lower() == "true":
        config = ParallelismConfig()  # what `accelerate launch` was told
    if config is None or config.cp_size == 1:
        return
    if not lesson.splits_context:
        raise RequestError(
            f"Context parallelism is for full attention, and {type(lesson).__name__} is another way: its rows cannot "
            "be divided among processes. Leave it out; several processes then take batches of their own."
        )
    student = lesson.model.config
    if student._attn_implementation != "sdpa":
        raise RequestError(
            f"Context parallelism wants the attention that torch has (sdpa), and the model's is "
            f"{student._attn_implementation}. Load it with attn_implementation='sdpa'."
        )
    if other := set(getattr(student, "layer_types", None) or ()) - {"full_attention"}:
        raise RequestError(
            f"Context parallelism is for full attention alone; the model has {', '.join(sorted(other))}."
        )
    if arguments.device.type == "cpu":
        raise RequestError(
            "Context parallelism needs GPUs: torch passes keys and values around in its kernels for GPUs only. "
            "Leave it out on a CPU."
        )


def shard_on_cpu(accelerator: Accelerator, arguments: TrainingArguments) -> bool:
    """See that FSDP2 is used where it was asked for and processes have no GPUs; whether it had to be seen to.

    torch divides weights among CPU processes just as well. accelerate 1.15 considers FSDP for kinds of processes with
    an accelerator only (`AcceleratorState.__init__`), and would train without it and not say so.
    """
    state: Any = accelerator.state
    asked = arguments.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not asked or state.distributed_type != DistributedType.MULTI_CPU:
        return False
    plugin = FullyShardedDataParallelPlugin(**(arguments.fsdp_plugin_args or {}))
    if plugin.fsdp_version != 2:
        raise RequestError("Only the second version of FSDP is supported; leave the version out, or say 2.")
    if state.mixed_precision != "no":
        plugin.set_mixed_precision(state.mixed_precision)
    state.fsdp_plugin = plugin
    # the second is what the first is made from whenever somebody asks for it anew
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return True


def weighed(loss: Tensor, inputs: dict[str, Any], accelerator: Accelerator) -> Tensor:
    """The loss of this process's piece of a row, so that the mean over processes is that of the whole row.

    Labels are not spread evenly: those of an answer are all in one piece. So a mean over a piece's labels counts by
    their share of the row's.

    Args:
        loss: The mean over the labels of this piece; 0 where it has none.
        inputs: This process's, with `shift_labels`.
        accelerator: With context parallelism.
    """
    group = accelerator.torch_device_mesh["cp"].get_group()
    mine: Tensor = (inputs["shift_labels"] != IGNORED).sum()
    total = mine.clone()
    all_reduce(total, ReduceOp.SUM, group)
    share: Tensor = mine * group.size() / total.clamp_min(1)
    return loss * share


def check_length(inputs: dict[str, Any], context_parallel: int) -> None:
    """Refuse rows that cannot be divided evenly.

    Raises:
        RequestError: Their length is not a multiple of twice the processes that share them.
    """
    length = inputs["input_ids"].shape[1]
    if length % (2 * context_parallel):  # each takes one piece from either end, so that all have the same to do
        raise RequestError(
            f"A row of {length} tokens cannot be divided among {context_parallel} processes; make lengths a multiple "
            f"of {2 * context_parallel}, by padding at the right."
        )


def is_sharded(model: nn.Module) -> bool:
    """Whether its weights are divided among processes."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)
