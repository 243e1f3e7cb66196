"""Looking words up in a dictionary: a task that can only be done with memory, small enough to learn in minutes.

It is the synthetic task of the Focused Transformer paper (Tworkowski et al., 2023): a document defines words, `<k> key
<v> value`, over some windows, and then asks for them, `<q> key <v> value`. The loss counts the values of questions
only. What is asked for is in no window with its question, and every definition of another document is as likely an
answer as the right one until keys are told apart.

Tokens: the symbols of keys and values are 0, 1, ...; then come the three marks. As text, symbols are digits and
letters.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training.examples import IGNORED

_SYMBOLS = string.digits + string.ascii_letters


@dataclass(frozen=True)
class Dictionary:
    """What entries look like.

    Attributes:
        symbols: Different tokens in keys and values.
        key: Tokens of a key.
        value: Tokens of a value.

    Raises:
        ValueError: There are more symbols than digits and letters.
    """

    symbols: int = 61
    key: int = 4
    value: int = 4

    def __post_init__(self) -> None:
        if self.symbols > len(_SYMBOLS):
            raise ValueError(f"{self.symbols} symbols were asked for; there are {len(_SYMBOLS)}")

    @property
    def words(self) -> str:
        """The symbols as text, a sign each."""
        return _SYMBOLS[: self.symbols]

    @property
    def marks(self) -> tuple[str, str, str]:
        """What begins a definition, what stands before a value, and what begins a question."""
        return "<k>", "<v>", "<q>"

    @property
    def keys(self) -> int:
        """Different keys."""
        return int(self.symbols**self.key)

    @property
    def vocabulary(self) -> int:
        """Different tokens, marks included."""
        return self.symbols + 3

    @property
    def entry(self) -> int:
        """Tokens of a definition, and of a question with its answer."""
        return self.key + self.value + 2

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Makes tokens of entries as text, with spaces between symbols and marks."""
        numbers = {word: number for number, word in enumerate((*self.words, *self.marks))}
        made = Tokenizer(models.WordLevel(numbers, unk_token=self.marks[1]))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)

    def documents(
        self, count: int, definitions: int, questions: int, seed: int, alike: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Documents that define words and then ask for some of them, in another order; no key is defined twice.

        Args:
            count: How many documents.
            definitions: In each of them.
            questions: In each of them, at most as many.
            seed: Draws all.
            alike: How many of the symbols, drawn anew for each place of a key, keys are made of; None for all. Of few,
                many keys differ in one symbol only, which random keys of millions do, but seldom those of hundreds.

        Returns:
            Tokens [count, T] and labels [count, T]: the next token where that is part of an answer, else -100.

        Raises:
            ValueError: There are not as many keys, or more questions than definitions.
        """
        if questions > definitions:
            raise ValueError(f"{questions} questions cannot be asked about {definitions} definitions")
        used = self.symbols if alike is None else min(alike, self.symbols)
        if count * definitions > used**self.key:
            raise ValueError(f"{used} symbols make no {count * definitions} keys of {self.key}")
        chance = random.Random(seed)
        numbers = torch.tensor(chance.sample(range(used**self.key), count * definitions))
        keys = numbers[:, None] // used ** torch.arange(self.key) % used
        if used < self.symbols:
            chosen = torch.tensor([chance.sample(range(self.symbols), used) for _ in range(self.key)])
            keys = chosen[torch.arange(self.key), keys]
        keys = keys.view(count, definitions, self.key)
        draw = torch.Generator().manual_seed(chance.getrandbits(63))
        values = torch.randint(self.symbols, (count, definitions, self.value), generator=draw)
        asked = torch.rand((count, definitions), generator=draw).argsort(dim=1)[:, :questions]
        row = torch.arange(count)[:, None]
        told = self._entries(self.symbols, keys, values)
        asking = self._entries(self.symbols + 2, keys[row, asked], values[row, asked])
        labels = torch.full((count, definitions * self.entry), IGNORED)
        answers = torch.full_like(asking, IGNORED)
        answers[:, :, self.key + 1 : -1] = asking[:, :, self.key + 2 :]
        return torch.cat((told.flatten(1), asking.flatten(1)), dim=1), torch.cat((labels, answers.flatten(1)), dim=1)

    def _entries(self, mark: int, keys: Tensor, values: Tensor) -> Tensor:
        """[count, n, key] and [count, n, value] to [count, n, entry]."""
        marks = keys.new_full((*keys.shape[:2], 1), mark)
        return torch.cat((marks, keys, torch.full_like(marks, self.symbols + 1), values), dim=2)


class DictionaryBatches(Dataset[dict[str, Tensor]]):
    """Batches of documents, each a pack of rows: windows with definitions, and a last one with questions.

    Each batch is a dict of `input_ids` and `labels`, [documents * windows, S], as `PackedDataset` gives them.

    Args:
        task: What entries look like.
        documents: In a batch.
        windows: Of a document; all but the last hold definitions.
        entries: Of a window.
        seed: Draws the documents, with the number of the batch.
        length: How many batches there are.
        alike: As for `Dictionary.documents`.
    """

    def __init__(
        self,
        task: Dictionary,
        *,
        documents: int,
        windows: int,
        entries: int,
        seed: int,
        length: int,
        alike: int | None = None,
    ) -> None:
        self._task, self._documents, self._windows, self._entries = task, documents, windows, entries
        self._seed, self._length, self._alike = seed, length, alike

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        definitions = (self._windows - 1) * self._entries
        seed = (self._seed << 64) + number
        ids, labels = self._task.documents(self._documents, definitions, self._entries, seed, self._alike)
        rows = (self._documents * self._windows, -1)
        return {"input_ids": ids.view(rows), "labels": labels.view(rows)}


@torch.no_grad()
def accuracy(model: LongLlamaForCausalLM, ids: Tensor, labels: Tensor) -> float:
    """Share of the answers' tokens that are the likeliest, when documents are read as any long input is.

    Args:
        model: Its windows should hold whole entries; `last_context_length` what is asked.
        ids: Documents, [B, T].
        labels: As `Dictionary.documents` gives them.
    """
    asked = labels != IGNORED
    first = int(asked.any(dim=0).nonzero()[0])
    logits = model(ids, use_cache=False, logits_to_keep=torch.arange(first, ids.shape[1])).logits
    hits = logits.argmax(-1) == labels[:, first:]
    return float(hits[asked[:, first:]].float().mean())
