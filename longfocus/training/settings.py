"""What transformers' `TrainingArguments` say in every run of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments


def settings(out: Path, *, steps: int, rate: float, seed: int, save_every: int, **more: Any) -> TrainingArguments:
    """Batches come whole and in their order; weights move in float32 and are used in bfloat16.

    Args:
        out: Where checkpoints go.
        steps: How many steps the optimizer takes.
        rate: Highest learning rate.
        seed: Of what Trainer draws.
        save_every: Steps between checkpoints.
        **more: Other arguments, in place of these too.
    """
    ours: dict[str, Any] = {
        "max_steps": steps,
        "learning_rate": rate,
        "per_device_train_batch_size": 1,  # an item of our data sets is a batch
        "train_sampling_strategy": "sequential",  # which batch has which number is theirs to say
        "weight_decay": 0.0,
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "save_steps": save_every,
        "save_total_limit": 2,
        "seed": seed,
        "report_to": [],
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }
    return TrainingArguments(output_dir=str(out), **{**ours, **more})
