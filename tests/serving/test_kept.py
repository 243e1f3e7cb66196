"""Documents that clients gave us: known by one server at a time, and by all of its threads alike."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from longfocus.errors import RequestError
from longfocus.reading.documents import Document
from longfocus.serving.kept import Kept, Note
from longfocus.serving.limits import Limits
from longfocus.serving.service import Service
from tests.serving.conftest import running

TEXT = "A river is long."


@pytest.fixture
def kept(tmp_path):
    made = Kept(tmp_path / "shelf" / "uploads")
    yield made
    made.close()


def add(kept):
    return kept.add(Document("A tale", TEXT, (0, len(TEXT)), ()), Note("a.txt", len(TEXT), 1))


def test_changes_from_several_threads_are_all_kept(kept):
    name, times = add(kept), 100

    def change(field):
        for number in range(1, times + 1):
            kept.mark(name, **{field: number})

    fields = ("tries", "place", "resumed", "bytes")
    with ThreadPoolExecutor(len(fields)) as pool:
        list(pool.map(change, fields))
    note = kept.note(name)
    assert [getattr(note, field) for field in fields] == [times] * len(fields)


def test_what_is_forgotten_is_not_known_again(kept):
    """However a change and the forgetting of it meet."""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(100):
            name = add(kept)
            both = [pool.submit(kept.mark, name, tries=1), pool.submit(kept.forget, name)]
            assert [each.result() for each in both] == [None, None]
            assert kept.note(name).bytes == 0


def test_a_second_server_is_refused_and_disturbs_nothing(endless, shelf):
    with running(endless) as server:
        coming = server.service.kept.place("new")
        coming.mkdir()
        with pytest.raises(RequestError, match=r"another server has the shelf .* LONGFOCUS_BOOKS") as caught:
            Service(endless, Limits())
        assert "\n" not in str(caught.value)
        assert coming.is_dir()
        assert server.ask("GET", "/v1/books").status_code == 200
    with running(endless):
        assert not coming.exists()


def test_a_shelf_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"cannot keep uploads .* choose another shelf"):
        Kept(tmp_path / "file" / "uploads")
