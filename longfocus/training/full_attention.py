"""Full attention over long inputs, to 100,000 tokens: transformers' own model, put together so that a step fits.

In the manner of Anima 100K (lyogavin, 2023): positions that are stretched, LoRA in every linear layer, layers computed
anew for their gradients, and no mask of T x T anywhere. Beyond it, what a layer does to each token by itself runs over
pieces of the sequence, only places with a label get logits, and what layers take may wait in another place than the
rest. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from longfocus.errors import RequestError
from longfocus.loading.architectures import to_longllama
from longfocus.loading.default_model import DEFAULT_MODEL
from longfocus.loading.fingerprint import fingerprint
from longfocus.loading.load import quiet
from longfocus.loading.vocabulary import load_tokenizer, vocabulary_files
from longfocus.loading.weights import find_weights
from longfocus.loading.whereabouts import find
from longfocus.training.chunked import POINTWISE, TOKENS, run_in_pieces
from longfocus.training.examples import Row
from longfocus.training.extend import EXTENSIONS, lora
from longfocus.training.lessons import CONFIGURATION, Lesson
from longfocus.training.losses import compute_loss
from longfocus.training.offload import saved_on_disk
from longfocus.training.padding import Collator

AS_THEY_ARE = "none"
MACHINE = "cpu"


@dataclass(frozen=True)
class Pupil:
    """A checkpoint that is about to learn.

    Attributes:
        model: transformers' own, in bfloat16, with the positions that were asked for.
        tokenizer: Its tokenizer.
        fingerprint: What identifies the checkpoint, as `longfocus.load` has it.
    """

    model: Any
    tokenizer: PreTrainedTokenizerFast
    fingerprint: str


def load_extended(name: str | None, length: int, extension: str) -> Pupil:
    """A LLaMA, Mistral, Qwen2 or Qwen3 as transformers has it, with positions for `length` tokens.

    Args:
        name: As `longfocus.load` takes it; None for the default model.
        length: Tokens of the longest input.
        extension: One of `longfocus.training.extend.EXTENSIONS`, or "none" for positions as they are.

    Raises:
        RequestError: There is no such extension, or the model does not attend to so many tokens.
        CheckpointError: The model cannot be found, or is of another architecture.
    """
    if extension not in (AS_THEY_ARE, *EXTENSIONS):
        raise RequestError(f"no extension {extension!r}; there are {', '.join((*EXTENSIONS, AS_THEY_ARE))}")
    with quiet():
        found = find(name, None, lambda _: None)
        config: Any = AutoConfig.from_pretrained(str(found.folder), local_files_only=True)
        ours = to_longllama(config, found.folder)
        if config.model_type == "longllama":
            raise RequestError(f"{found.name} attends by its memory layers; full attention wants a plain checkpoint.")
        if ours.window_length is not None and ours.window_length < length:
            raise RequestError(f"Layers of {found.name} attend to {ours.window_length} tokens, {length} are wanted.")
        if extension != AS_THEY_ARE:
            config = EXTENSIONS[extension](config, length)
        elif config.max_position_embeddings < length:
            raise RequestError(
                f"{found.name} has positions for {config.max_position_embeddings} tokens, {length} are wanted. "
                f"Name an extension: {', '.join(EXTENSIONS)}."
            )
        tokenizer = load_tokenizer(found.folder, ours, config.model_type)
        auto: Any = AutoModelForCausalLM
        model = auto.from_pretrained(
            str(found.folder), config=config, dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True
        )
    made_here = found.name == DEFAULT_MODEL or found.name.endswith(".gguf")  # others cannot be found by that name
    model.name_or_path = str(found.folder) if made_here else found.name  # which adapters note as their base
    files = find_weights(found.folder), vocabulary_files(found.folder)
    return Pupil(model, tokenizer, fingerprint(files[0], ours, files[1], lambda _: None))


def with_anima_lora(model: Any, rank: int, alpha: int) -> Any:
    """The model with LoRA in every linear layer but the head, in float32; the rest is frozen."""
    with quiet():
        return get_peft_model(model, lora(rank, alpha))


@dataclass(frozen=True)
class CausalCollator:
    """Rows as a batch without a mask: padding stands at the right, where no token looks at it.

    Attributes:
        multiple: What the length is a multiple of.
    """

    multiple: int = 1

    def __call__(self, rows: Sequence[Row]) -> Row:
        """`input_ids` and `labels`, each [B, T].

        Raises:
            RequestError: A row hides something to the left of a token.
        """
        batch = Collator(token=0, multiple=self.multiple)(rows)
        if bool((batch.pop("attention_mask").diff(dim=-1) > 0).any()):
            length = batch["input_ids"].shape[1]
            raise RequestError(
                "Full attention wants padding at the right alone: with tokens hidden elsewhere, a mask of "
                f"{length} x {length} would be needed."
            )
        return batch


class FullAttentionLesson(Lesson):
    """The language modelling loss of whole rows, every token attending to all before it.

    Args:
        student: A causal language model of transformers with "sdpa" attention, or peft around one.
        tokens: How many tokens a layer's pointwise parts take at once.
        offload: Where what layers take waits for its gradient: empty for where it is, "cpu" for the machine's memory
            where the model is on a GPU, else a folder on a disk.

    Raises:
        RequestError: There is no GPU for "cpu" to make sense.
    """

    splits_context = True

    def __init__(self, student: Any, *, tokens: int = TOKENS, offload: str = "") -> None:
        super().__init__(student)
        if offload == MACHINE and not torch.cuda.is_available():
            raise RequestError("There is no GPU, so the machine's memory is no other place. Name a folder on a disk.")
        self._folder = Path(offload) if offload not in ("", MACHINE) else None
        self.model.activation_checkpointing_enable(offload=offload == MACHINE)
        run_in_pieces(student, tokens, POINTWISE)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor | None = None,
        shift_labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The mean over all labelled places of batches such as `CausalCollator` makes.

        Args:
            input_ids: [B, T].
            labels: [B, T], -100 where nothing is to be learnt; not shifted.
            position_ids: [B, T], where this process has a piece of each row.
            shift_labels: [B, T], the label of the token after each, likewise; they count in place of `labels`.

        Returns:
            "loss".
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "labels": labels}
        if shift_labels is not None:
            inputs |= {"position_ids": position_ids, "shift_labels": shift_labels}
        with nullcontext() if self._folder is None else saved_on_disk(self._folder):
            return {"loss": compute_loss(self.student, inputs)}

    def save(self, folder: Path) -> None:
        """See `Lesson.save`; with the configuration, as an adapter alone does not tell which positions it knows."""
        super().save(folder)
        self.model.config.to_json_file(folder / CONFIGURATION)
