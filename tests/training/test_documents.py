"""Collections of documents: joined ones are all in order, and what is left out is not there."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longfocus.training.documents import JoinedDocuments, LeftOut, ListedDocuments, TrainingDocument


@settings(deadline=None)
@given(st.lists(st.lists(st.text(max_size=3), max_size=4), max_size=5))
def test_joined_documents_are_all_in_order(parts):
    joined = JoinedDocuments([ListedDocuments(TrainingDocument(text, "") for text in part) for part in parts])
    assert [document.text for document in joined] == [text for part in parts for text in part]
    with pytest.raises(IndexError):
        joined[len(joined)]


@settings(deadline=None)
@given(st.integers(0, 8), st.sets(st.integers(0, 7)))
def test_left_out_documents_are_not_there(count, numbers):
    whole = ListedDocuments(TrainingDocument(str(n), "") for n in range(count))
    rest = LeftOut(whole, numbers)
    assert [document.text for document in rest] == [str(n) for n in range(count) if n not in numbers]
