"""Ways of being long that can be measured with the same tasks, and what they are called on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longfocus.errors import RequestError

if TYPE_CHECKING:
    from longfocus.asking.session import Uses
    from longfocus.evaluation.subject import Subject
    from longfocus.evaluation.subjects.retrievers import Retriever
    from longfocus.loading.load import LoadedModel

SUBJECTS = {
    "memory": "the model with a Book",
    "memory:N": "the same with N passages looked up for each question; memory:0 answers from memory alone",
    "memory:int8": "the same with one byte for each number of keys and values",
    "window": "the model with what of the document's end fits its window",
    "nothing": "the model without the document",
    "full": "the model with full attention",
    "full:WAY": "the same with positions stretched where they do not suffice: linear, dynamic, yarn",
    "bm25+SUBJECT": "the 3 chunks whose words fit the question best, read by a subject; bm25 alone is bm25+full",
    "dense:FOLDER+SUBJECT": "the 3 chunks nearest to it by an embedder of sentence-transformers, likewise",
    "openai:MODEL": "a model behind OpenAI's API; openai:MODEL@URL for another API of that kind",
    "openai-text:MODEL": "the same where the API also goes on with texts",
    "anthropic:MODEL": "a model behind Anthropic's API, or with @URL another of that kind",
}
"""What `subject_of` takes."""

_USES: dict[str, Uses] = {"memory": "memory", "window": "window", "nothing": "nothing"}
_RETRIEVAL = re.compile(r"(bm25|dense(?::(?P<folder>[^+]*))?)(?:\+(?P<generator>.*))?")
_REMOTE = re.compile(r"(openai|openai-text|anthropic):(?P<model>.+?)(?:@(?P<base>https?://.+))?")


class LocalModel:
    """The model of this machine, loaded when it is first needed, and its tokenizer, for which it need not be loaded.

    Args:
        load: Loads it.
        name: As `longfocus.load` takes it; None for the default model.
    """

    def __init__(self, load: Callable[[], LoadedModel], name: str | None = None) -> None:
        self._load = load
        self._name = name

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model.

        Raises:
            CheckpointError: It cannot be loaded.
        """
        return self._load()

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer.

        Raises:
            CheckpointError: It cannot be loaded.
        """
        if "loaded" in vars(self):
            return self.loaded.tokenizer
        from longfocus.loading.architectures import to_longllama
        from longfocus.loading.load import quiet
        from longfocus.loading.vocabulary import load_tokenizer
        from longfocus.loading.whereabouts import find

        with quiet():
            folder = find(self._name, None, lambda _: None).folder
            fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return load_tokenizer(folder, to_longllama(fields, folder), fields["model_type"])


@dataclass(frozen=True)
class SubjectOptions:
    """What a subject's name does not say.

    Attributes:
        chunk: Most tokens of a chunk, for retrieval.
        overlap: About how many tokens two neighbouring chunks share.
        best: How many chunks are read.
        key_variable: Environment variable with the key of APIs; empty for OPENAI_API_KEY and ANTHROPIC_API_KEY.
        thinking: Tokens allowed on top of an answer's to models behind APIs, for those that think before they answer.
        scratch: Where Books are kept while they are asked; None for the system's folder for temporary files.
    """

    chunk: int = 512
    overlap: int = 0
    best: int = 3
    key_variable: str = ""
    thinking: int = 0
    scratch: Path | None = None


def subject_of(
    text: str,
    local: LocalModel,
    options: SubjectOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Subject:
    """The subject that a user calls by this name, one of SUBJECTS.

    Args:
        text: Such as `memory`, `full:yarn`, `bm25`, `openai:MODEL`, or `bm25+openai:MODEL` for retrieval with a model
            behind an API; `bm25` alone has the local model with full attention read the chunks.
        local: The model of this machine; loaded only where the subject needs it.
        options: What the name does not say.
        say: Told once what an API does not let us choose.

    Raises:
        RequestError: There is no such subject, or something that it needs is missing.
        CheckpointError: The local model cannot be loaded.
    """
    options = options or SubjectOptions()
    if found := _RETRIEVAL.fullmatch(text):
        from longfocus.evaluation.subjects.retrieval import RetrievalSubject

        retriever = _retriever(text, found["folder"])  # before the model is loaded, as it may be missing
        generator = subject_of("full" if found["generator"] is None else found["generator"], local, options, say)
        return RetrievalSubject(
            generator, retriever, local.tokenizer, size=options.chunk, overlap=options.overlap, best=options.best
        )
    if found := _REMOTE.fullmatch(text):
        from longfocus.evaluation.subjects.remote import AnthropicSubject, OpenAiSubject, RemoteSettings

        settings = RemoteSettings(
            found["model"], found["base"] or "", options.key_variable, found[1] == "openai-text", options.thinking
        )
        return (AnthropicSubject if found[1] == "anthropic" else OpenAiSubject)(settings, local.tokenizer, say)
    kind, _, way = text.partition(":")
    if kind == "full":
        from longfocus.evaluation.subjects.full import AS_THEY_ARE, FullSubject

        return FullSubject(local.loaded, way or AS_THEY_ARE)
    if text in _USES or (kind == "memory" and (way == "int8" or way.isdecimal())):
        from longfocus.evaluation.subjects.book import BookSubject

        look_up = int(way) if way.isdecimal() else None
        return BookSubject(local.loaded, _USES[kind], options.scratch, look_up, packed=way == "int8")
    raise RequestError(f"there is no subject {text!r}; there are {', '.join(SUBJECTS)}")


def _retriever(text: str, folder: str | None) -> Retriever:
    from longfocus.evaluation.subjects.retrievers import Bm25, Dense

    if text.startswith("bm25"):
        return Bm25()
    if not folder:
        raise RequestError("dense retrieval wants the folder of an embedder: dense:FOLDER")
    return Dense.load(Path(folder))
