"""What the evaluations' tests share: a book long enough to be reported on, and the reference's tokenizer."""

from pathlib import Path

import pytest

from tests.conftest import story
from tests.evaluation.small_books import write_questioned_books
from tests.evaluation.small_sets import (
    write_answered_questions,
    write_classified_questions,
    write_programming_problems,
)
from tests.evaluation.small_topics import write_conversations

ROOT = Path(__file__).parent.parent.parent
TOKENIZERS = [
    folder / "shared/data/tokenizers/openllama_v1_tokenizer.model"
    for folder in (ROOT, ROOT.parent)
    if (folder / "shared/data/tokenizers").is_dir()
]


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this folder."""


@pytest.fixture(scope="session")
def reporting_data(tmp_path_factory):
    """A folder of data sets in the forms of those that tasks read: long books of the test split, few records else."""
    folder = tmp_path_factory.mktemp("data")
    text = story(70_000)
    assert len(text) > 400_000
    write_questioned_books(folder, {f"long{number}": text for number in range(6)}, questions=3)
    write_conversations(folder)
    write_classified_questions(folder)
    write_answered_questions(folder)
    write_programming_problems(folder)
    return folder


@pytest.fixture(scope="session")
def reference_count():
    """Counts tokens as OpenLLaMA does."""
    if not TOKENIZERS:
        pytest.skip("the shared folder of tokenizers is not here")
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(TOKENIZERS[0]))
    return lambda text: len(model.encode(text))
