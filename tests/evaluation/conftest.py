"""What the evaluations' tests share: a book long enough to be reported on, and the reference's tokenizer."""

import gzip
import json
from pathlib import Path

import pytest

from tests.conftest import story

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
    """A folder of data sets with one book of the test split, in the form of NarrativeQA's files."""
    folder = tmp_path_factory.mktemp("data")
    text = story(70_000)
    assert len(text) > 400_000
    (folder / "books").mkdir()
    (folder / "narrativeqa").mkdir()
    (folder / "books" / "long.txt").write_text(text, encoding="utf-8")
    book = {"file": "books/long.txt", "title": "Long", "body_start": 0, "body_end": len(text)}
    book |= {"narrativeqa_document_id": "d1", "narrativeqa_set": "test"}
    (folder / "books" / "index.json").write_text(json.dumps([book]))
    asked = {"id": "q1", "document_id": "d1", "set": "test", "question": "Who?", "answers": ["a captain"]}
    with gzip.open(folder / "narrativeqa" / "qa_valid_test.jsonl.gz", "wt") as file:
        file.write(json.dumps(asked) + "\n")
    return folder


@pytest.fixture(scope="session")
def reference_count():
    """Counts tokens as OpenLLaMA does."""
    if not TOKENIZERS:
        pytest.skip("the shared folder of tokenizers is not here")
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(TOKENIZERS[0]))
    return lambda text: len(model.encode(text))
