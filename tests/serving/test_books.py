"""Books over HTTP: what comes in, how it is read, stopped, gone on with and deleted."""

import json

import pytest

from longfocus.reading.documents import load_document
from longfocus.serving.limits import Limits
from tests.conftest import story
from tests.serving.conftest import BOOK, running

SHORT = story(120)
LONG = story(6000)


def upload(server, text=SHORT, name="a tale.txt", path="/v1/books", **fields):
    data = text.encode() if isinstance(text, str) else text
    return server.ask("POST", path, files={"file": (name, data)}, data=fields)


def events(server, name, most=10_000):
    """What is told of a reading."""
    told = []
    with server.http.stream("GET", f"{server.base}/v1/books/{name}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
            if len(told) >= most:
                break
    return told


def test_a_document_becomes_a_book(server, tmp_path):
    response = upload(server)
    assert response.status_code == 201
    made = response.json()
    name = made["id"]
    assert response.headers["location"] == f"/v1/books/{name}"
    assert made["filename"] == "a tale.txt"
    told = events(server, name)
    assert told[-1]["status"] == "ready"
    assert told[-1]["tokens_read"] == told[-1]["tokens"] > 100
    book = server.ask("GET", f"/v1/books/{name}").json()
    assert book["model"] == f"default@{name}"
    assert book["upload_bytes"] == len(SHORT.encode())
    assert name in [each["id"] for each in server.ask("GET", "/v1/books").json()["data"]]
    (tmp_path / "tale.txt").write_text(SHORT, encoding="utf-8")
    document = load_document(tmp_path / "tale.txt")
    assert server.ask("GET", f"/v1/books/{name}/text").text == document.text
    assert server.ask("GET", f"/v1/books/{name}/text?start=3&end=9").text == document.text[3:9]
    sections = server.ask("GET", f"/v1/books/{name}/sections").json()["data"]
    assert [section["label"] for section in sections] == [section.label for section in document.sections]
    with server.client() as client:
        made = client.chat.completions.create(
            model=f"default@{name}", messages=[{"role": "user", "content": "What?"}], max_tokens=4
        )
    for citation in made.choices[0].citations:
        assert citation["text"] == document.text[citation["start"] : citation["end"]]
    assert events(server, name) == [server.ask("GET", f"/v1/books/{name}").json()]
    assert server.ask("DELETE", f"/v1/books/{name}").json()["deleted"]
    assert server.ask("GET", f"/v1/books/{name}").status_code == 404
    assert not [path for path in server.service.shelf.folder.rglob("*") if name in path.name]


def test_files_are_read_too(server):
    with server.client() as client:
        made = client.files.create(file=("tale.md", SHORT.encode()), purpose="user_data")
        assert (made.filename, made.bytes, made.purpose) == ("tale.md", len(SHORT.encode()), "user_data")
        server.until(made.id, "ready")
        assert client.files.retrieve(made.id).status == "processed"
        assert client.files.delete(made.id).deleted


def test_reading_is_stopped_gone_on_with_and_deleted(server):
    name = upload(server, LONG).json()["id"]
    told = events(server, name, most=4)
    assert told[-1]["status"] == "reading"
    assert 0 < told[-1]["tokens_read"] < told[-1]["tokens"]
    assert told[-1]["seconds_left"] > 0
    stopped = server.ask("POST", f"/v1/books/{name}/cancel").json()
    assert stopped["status"] == "stopped"
    assert server.ask("POST", f"/v1/books/{name}/cancel").status_code == 409
    assert not any(model.id.endswith(name) for model in server.client().models.list())
    asked = {"model": f"default@{name}", "messages": [{"role": "user", "content": "What?"}]}
    refused = server.ask("POST", "/v1/chat/completions", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "book_not_ready")
    assert str(server.service.shelf.folder) not in refused.text
    on = server.ask("POST", f"/v1/books/{name}/read")
    assert on.status_code == 202
    again = server.until(name, "reading")
    assert again["tokens_read"] >= stopped["tokens_read"]
    assert server.ask("POST", f"/v1/books/{name}/read").status_code == 409
    assert server.ask("DELETE", f"/v1/books/{name}").status_code == 200
    assert not [path for path in server.service.shelf.folder.rglob("*") if name in path.name]


def answering(server):
    """A stream of an answer that takes minutes, once it is being written."""
    client = server.client()
    asked = {"model": f"default@{BOOK}", "messages": [{"role": "user", "content": "What?"}], "max_tokens": 4000}
    stream = client.chat.completions.create(**asked, stream=True)
    next(iter(stream))
    return stream, client


def test_stopping_and_deleting_do_not_wait_for_answers(server):
    name = upload(server, LONG).json()["id"]
    server.until(name, "reading")
    stream, client = answering(server)
    assert server.ask("POST", f"/v1/books/{name}/cancel").json()["status"] == "stopped"
    assert next(iter(stream)).choices, "the answer goes on"
    stream.close()
    client.close()
    assert server.ask("POST", f"/v1/books/{name}/read").status_code == 202
    server.until(name, "reading")
    stream, client = answering(server)
    assert server.ask("DELETE", f"/v1/books/{name}").status_code == 200
    assert next(iter(stream)).choices
    stream.close()
    client.close()
    assert not [path for path in server.service.shelf.folder.rglob("*") if name in path.name]


def test_who_follows_a_reading_does_not_keep_others_from_stopping_it(endless, shelf):
    with running(endless, Limits(watchers=1)) as server:
        name = upload(server, LONG).json()["id"]
        with server.http.stream("GET", f"{server.base}/v1/books/{name}/events") as followed:
            lines = followed.iter_lines()
            next(lines)
            assert server.ask("GET", f"/v1/books/{name}/events").status_code == 429
            assert server.ask("POST", f"/v1/books/{name}/cancel").json()["status"] == "stopped"
        assert server.ask("DELETE", f"/v1/books/{name}").status_code == 200


def test_questions_are_answered_while_a_book_is_read(server):
    name = upload(server, LONG).json()["id"]
    server.until(name, "reading")
    with server.client() as client:
        made = client.chat.completions.create(
            model=f"default@{BOOK}", messages=[{"role": "user", "content": "What?"}], max_tokens=4
        )
    assert made.choices
    assert server.ask("GET", f"/v1/books/{name}").json()["status"] == "reading"
    server.ask("DELETE", f"/v1/books/{name}")


def test_a_server_that_stops_goes_on_at_its_next_start(endless, shelf):
    with running(endless) as server:
        first, second = (upload(server, LONG).json()["id"] for _ in range(2))
        stopped = upload(server, LONG).json()["id"]
        server.ask("POST", f"/v1/books/{stopped}/cancel")
        server.until(first, "reading")
        before = events(server, first, most=4)[-1]["tokens_read"]
    with running(endless) as server:
        book = server.until(first, "reading")
        assert book["filename"] == "a tale.txt"
        assert book["tokens_read"] >= before > 0, "it went on, and did not begin anew"
        assert events(server, first, most=3)[-1]["tokens_resumed"] >= before
        assert server.until(second, "waiting")
        assert server.until(stopped, "stopped")
        for name in (first, second, stopped):
            server.ask("DELETE", f"/v1/books/{name}")
        assert [book["id"] for book in server.ask("GET", "/v1/books").json()["data"]] == [BOOK]


@pytest.mark.parametrize("book_is_gone", [False, True])
def test_a_deletion_that_was_broken_off_is_ended_at_the_next_start(endless, shelf, book_is_gone, monkeypatch):
    with running(endless) as server:
        name = upload(server).json()["id"]
        server.until(name, "ready")

        class Killed(BaseException):
            """As far as a server comes that is killed."""

        def killed(*_):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(server.service.kept if book_is_gone else server.service.shelf, HALF[book_is_gone], killed)
            with pytest.raises(Killed):
                server.service.remove(name)
    with running(endless) as server:
        assert server.ask("GET", f"/v1/books/{name}").status_code == 404
        assert not [path for path in shelf.rglob("*") if name in path.name]


HALF = {False: "remove", True: "forget"}


def test_what_fails_three_times_in_one_place_is_left(endless, shelf, monkeypatch):
    def fails(*_):
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr("longfocus.serving.readings.read_steps", fails)
        name = None
        for _ in range(4):
            with running(endless) as server:
                name = name or upload(server).json()["id"]
                failed = server.until(name, "failed")
        assert "3 times" in failed["error"]
    with running(endless) as server:
        assert server.until(name, "failed") == failed
        assert server.ask("POST", f"/v1/books/{name}/read").status_code == 202
        server.until(name, "ready")
        assert server.service.kept.note(name).tries == 1


def test_books_of_the_command_line_are_told_apart(endless, tiny_model, shelf):
    """One that another model read, one that is damaged, one that is none."""
    import shutil

    shutil.copytree(shelf / f"{BOOK}.book", shelf / "foreign.book")
    manifest = shelf / "foreign.book" / "manifest.json"
    held = json.loads(manifest.read_text("utf-8"))
    held["reading"]["window"] = 128
    manifest.write_text(json.dumps(held), encoding="utf-8")
    shutil.copytree(shelf / f"{BOOK}.book", shelf / "broken.book")
    (shelf / "broken.book" / "manifest.json").write_text("{", encoding="utf-8")
    (shelf / "empty.book").mkdir()
    (shelf / "file.book").write_text("no folder")
    with running(endless) as server:
        books = {book["id"]: book for book in server.ask("GET", "/v1/books").json()["data"]}
        assert {name: book["status"] for name, book in books.items()} == {
            BOOK: "ready",
            "broken": "unusable",
            "empty": "unusable",
            "foreign": "unusable",
        }
        assert "read with window 128" in books["foreign"]["error"]
        assert str(shelf) not in json.dumps(books)
        for name in ("foreign", "broken", "empty"):
            asked = {"model": f"default@{name}", "messages": [{"role": "user", "content": "What?"}]}
            refused = server.ask("POST", "/v1/chat/completions", json=asked)
            assert refused.status_code == 409
            assert str(shelf) not in refused.text
            assert server.ask("GET", f"/v1/books/{name}/sections").status_code in (200, 409)
        assert server.ask("DELETE", "/v1/books/broken").status_code == 200
        assert not (shelf / "broken.book").exists()


def test_a_full_disk_stops_a_reading_and_nothing_else(server, monkeypatch):
    import errno

    from longfocus.memory import writer

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "replace_file", full)
        name = upload(server).json()["id"]
        failed = server.until(name, "failed")
    assert "no space left" in failed["error"]
    assert str(server.service.shelf.folder) not in failed["error"]
    assert server.ask("POST", f"/v1/books/{name}/read").status_code == 202
    server.until(name, "ready")
    server.ask("DELETE", f"/v1/books/{name}")


def test_no_more_documents_wait_than_may(endless, shelf):
    """Of four places one client may have two."""
    with running(endless, Limits(readings=4)) as server:
        names = [upload(server, LONG).json()["id"]]
        server.until(names[0], "reading")
        names += [upload(server, SHORT).json()["id"] for _ in range(2)]
        refused = upload(server, SHORT)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert len(server.ask("GET", "/v1/books").json()["data"]) == 4
        for name in names:
            server.ask("DELETE", f"/v1/books/{name}")


def test_metrics(server):
    server.ask("GET", "/v1/books")
    server.ask("GET", "/v1/books/../../etc/passwd")
    text = server.ask("GET", "/metrics").text
    assert 'longfocus_requests_total{endpoint="books",status="200"}' in text
    assert "passwd" not in text
    assert 'longfocus_waiting{kind="questions"} 0.0' in text
    assert "process_resident_memory_bytes" in text
