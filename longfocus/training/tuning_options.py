"""Mixtures of data sets written as LongLLaMA's tuning script takes them: lists in strings, one place for each data set.

`data_type`, `data_path` and the names of fields are joined by commas, filters and texts by `<,>`. Fields and texts are
lists over the data sets of their type only; one alone holds for all of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longfocus.errors import RequestError
from longfocus.training.chat_templates import TemplateFormat
from longfocus.training.conversations import ConversationFields, ConversationFormat, Replacements
from longfocus.training.examples import Format, Record
from longfocus.training.filters import BETWEEN_DATASETS, parse_filters
from longfocus.training.instructions import InstructionFields, InstructionFormat
from longfocus.training.padding import Padding, longllama_hidden
from longfocus.training.records import load_records
from longfocus.training.tuning_data import Records, TuningDataset, TuningMixture

INSTRUCTIONS, CHAT = "instructions", "chat"
NO_FIELD = "None"


@dataclass(frozen=True)
class TuningOptions:
    """The options of LongLLaMA's tuning script that say what to train on; names and defaults are its own.

    Attributes:
        data_type: "instructions" or "chat" for each data set.
        data_path: A JSON file for each; see `longfocus.training.records.load_records`.
        data_filter: Rules for each; see `longfocus.training.filters`.
        data_proportions: The share of each; together 1.
        prompt_field: Field of the system prompt; "None" for data sets without. The other options likewise name the
            attributes of `InstructionFormat`, `ConversationFormat` and their fields.
        always_pad: Whether rows are padded to `max_total_length`.
        random_pad: Whether some of that padding stands at the left.
        template: Whether records take the form of the tokenizer's chat template in place of LongLLaMA's forms, whose
            texts then do not count.
        mask_by_id: Whether tokens that look like padding, and in chats EOS, are never attended to, as LongLLaMA has it.
        mix_seed: For drawing which row is of which data set.
        seed: For drawing padding.
    """

    data_path: str
    data_type: str = INSTRUCTIONS
    data_filter: str | None = None
    data_proportions: Sequence[float] = (1.0,)
    pre_prompt_text: str = ""
    prompt_field: str | None = None
    post_prompt_text: str = "\n"
    pre_question_text: str = ""
    question_field: str | None = None
    post_question_text: str = "\n"
    pre_response_text: str = ""
    response_field: str | None = None
    post_response_text: str = ""
    chat_conversations_field: str = "conversations"
    chat_data_field: str = "value"
    chat_source_name_field: str = "from"
    chat_model_source_name: str = "gpt"
    chat_initial_prompt: str = "You are a helpful ASSISTANT.\n\n"
    chat_replace_rules: str | None = None
    chat_model_response_prefix: str = "\nASSISTANT: "
    chat_human_response_prefix: str = "\nUSER: "
    max_input_length: int = 2048
    max_output_length: int = 2048
    max_total_length: int = 2048
    always_pad: bool = True
    random_pad: bool = True
    template: bool = False
    mask_by_id: bool = False
    mix_seed: int = 42
    seed: int = 0

    def formats(self) -> list[Format]:
        """How the records of each data set become tokens.

        Raises:
            RequestError: A type is not known, a needed field is not named, or lists differ in length.
        """
        types = self.data_type.split(",")
        for kind in types:
            if kind not in (INSTRUCTIONS, CHAT):
                raise RequestError(f"data_type has {kind!r}; wanted {INSTRUCTIONS} or {CHAT} for each data set")
        places = [types[:number].count(kind) for number, kind in enumerate(types)]
        found = [
            self._instructions(place, types.count(kind))
            if kind == INSTRUCTIONS
            else self._chat(place, types.count(kind))
            for kind, place in zip(types, places, strict=True)
        ]
        return [TemplateFormat(form.fields, self.max_total_length) for form in found] if self.template else [*found]

    def records(self) -> dict[str, list[Record]]:
        """The records of each file of `data_path`.

        Raises:
            DocumentError: A file cannot be used.
        """
        return {path: load_records(path) for path in self.data_path.split(",")}

    def mixture(self, tokenizer: Any, records: Mapping[str, Records] | None = None) -> TuningMixture:
        """The data sets, read and mixed.

        Args:
            tokenizer: The model's.
            records: What `records` gave, perhaps without some of them; None reads the files.

        Raises:
            RequestError: Options that do not fit each other or the tokenizer.
            DocumentError: A file that cannot be used.
        """
        formats, types, paths = self.formats(), self.data_type.split(","), self.data_path.split(",")
        filters = parse_filters(
            self.data_filter if self.data_filter is not None else BETWEEN_DATASETS * (len(types) - 1)
        )
        counts = {
            "data_type": len(types),
            "data_path": len(paths),
            "data_filter": len(filters),
            "data_proportions": len(self.data_proportions),
        }
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise RequestError(f"the lists are for different numbers of data sets ({told}); give each the same number")
        padding = None
        if self.always_pad:
            padding = Padding.of(tokenizer, self.max_total_length, random_left=self.random_pad, seed=self.seed)
        records = self.records() if records is None else records
        datasets = [
            TuningDataset(
                records[path],
                form,
                tokenizer,
                rules=rules,
                padding=padding,
                hidden=longllama_hidden(tokenizer, chat=kind == CHAT) if self.mask_by_id else (),
            )
            for path, form, rules, kind in zip(paths, formats, filters, types, strict=True)
        ]
        return TuningMixture(datasets, self.data_proportions, self.mix_seed)

    def _instructions(self, place: int, count: int) -> InstructionFormat:
        prompt = self._name("prompt_field", place, count)
        question = self._name("question_field", place, count)
        response = self._name("response_field", place, count)
        if question is None or response is None:
            raise RequestError("question_field and response_field are needed for each data set of instructions")
        return InstructionFormat(
            fields=InstructionFields(prompt, question, response),
            before_prompt=self._text("pre_prompt_text", place, count),
            after_prompt=self._text("post_prompt_text", place, count),
            before_question=self._text("pre_question_text", place, count),
            after_question=self._text("post_question_text", place, count),
            before_response=self._text("pre_response_text", place, count),
            after_response=self._text("post_response_text", place, count),
            longest_input=self.max_input_length,
            longest_output=self.max_output_length,
            longest=self.max_total_length,
        )

    def _chat(self, place: int, count: int) -> ConversationFormat:
        names = ("chat_conversations_field", "chat_data_field", "chat_source_name_field", "chat_model_source_name")
        conversation, text, speaker, model = (self._name(name, place, count) for name in names)
        if conversation is None or text is None or speaker is None or model is None:
            raise RequestError(f"{', '.join(names)} are needed for each data set of chats")
        return ConversationFormat(
            fields=ConversationFields(conversation, text, speaker, Replacements.parse(self.chat_replace_rules or "")),
            model=model,
            initial_prompt=self.chat_initial_prompt,
            model_prefix=self.chat_model_response_prefix,
            human_prefix=self.chat_human_response_prefix,
            longest=self.max_total_length,
        )

    def _text(self, name: str, place: int, count: int) -> str:
        """What a list of texts has for one data set."""
        text: str = _for_one(name, getattr(self, name).split(BETWEEN_DATASETS), place, count)
        return text

    def _name(self, name: str, place: int, count: int) -> str | None:
        """What a list of names has for one data set."""
        value: str | None = getattr(self, name)
        if value is None:
            return None
        found = _for_one(name, value.split(","), place, count)
        return None if found == NO_FIELD else found


def _for_one(name: str, values: list[str], place: int, count: int) -> str:
    if len(values) not in (1, count):
        raise RequestError(f"{name} has {len(values)} places for {count} data sets of its type; give 1 or {count}")
    return values[0] if len(values) == 1 else values[place]
