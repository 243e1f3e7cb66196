"""Longfocus: read a book once, ask it many times, with citations.

`import longfocus` registers our model with transformers' Auto classes, so that
`AutoModelForCausalLM.from_pretrained(...)`, `generate`, peft and Trainer take it as one of their own. Registering needs
transformers, which takes seconds to import; the `longfocus` command puts that off until a verb loads a model
(see `longfocus_cli`). The names below are imported when first used.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longfocus.asking.conversation import Conversation as Conversation
    from longfocus.asking.faithfulness import Faithfulness as Faithfulness
    from longfocus.asking.generation import Sampling as Sampling
    from longfocus.asking.passages import Citation as Citation
    from longfocus.asking.session import Answer as Answer
    from longfocus.asking.session import Timings as Timings
    from longfocus.books import Book as Book
    from longfocus.books import read as read
    from longfocus.errors import BookError as BookError
    from longfocus.errors import CheckpointError as CheckpointError
    from longfocus.errors import DocumentError as DocumentError
    from longfocus.errors import RequestError as RequestError
    from longfocus.errors import UserError as UserError
    from longfocus.loading.load import LoadedModel as LoadedModel
    from longfocus.loading.load import load as load
    from longfocus.model.config import LongLlamaConfig as LongLlamaConfig
    from longfocus.model.modeling import LongLlamaForCausalLM as LongLlamaForCausalLM
    from longfocus.model.modeling import LongLlamaForSequenceClassification as LongLlamaForSequenceClassification
    from longfocus.model.modeling import LongLlamaModel as LongLlamaModel
    from longfocus.reading.documents import Document as Document
    from longfocus.reading.documents import load_document as load_document
    from longfocus.reading.reader import ReadProgress as ReadProgress
    from longfocus.reading.reader import read_steps as read_steps

    __version__: str

HOMES = {
    "Answer": "longfocus.asking.session",
    "Book": "longfocus.books",
    "BookError": "longfocus.errors",
    "CheckpointError": "longfocus.errors",
    "Citation": "longfocus.asking.passages",
    "Conversation": "longfocus.asking.conversation",
    "Document": "longfocus.reading.documents",
    "DocumentError": "longfocus.errors",
    "Faithfulness": "longfocus.asking.faithfulness",
    "LoadedModel": "longfocus.loading.load",
    "LongLlamaConfig": "longfocus.model.config",
    "LongLlamaForCausalLM": "longfocus.model.modeling",
    "LongLlamaForSequenceClassification": "longfocus.model.modeling",
    "LongLlamaModel": "longfocus.model.modeling",
    "ReadProgress": "longfocus.reading.reader",
    "RequestError": "longfocus.errors",
    "Sampling": "longfocus.asking.generation",
    "Timings": "longfocus.asking.session",
    "UserError": "longfocus.errors",
    "load": "longfocus.loading.load",
    "load_document": "longfocus.reading.documents",
    "read": "longfocus.books",
    "read_steps": "longfocus.reading.reader",
}
"""The module that each public name comes from."""

__all__ = ["__version__", *HOMES]

if not TYPE_CHECKING:  # a type checker reads the imports above, and so still notices a misspelt name

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used (PEP 562)."""
        if name == "__version__":
            return version("longfocus")
        if name in HOMES:
            return getattr(import_module(HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if "longfocus_cli" not in sys.modules:
    from longfocus.model.registration import register

    register()
