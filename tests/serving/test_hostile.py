"""Requests that mean harm: each gets an error, and the server serves the next."""

import contextlib
import io
import json
import socket
import time
import zipfile
from dataclasses import replace

import pytest

from longfocus.serving.limits import Limits
from tests.serving.conftest import BOOK, running

LIMITS = Limits(
    body_bytes=10_000,
    upload_bytes=300_000,
    document_characters=20_000,
    body_seconds=1.0,
    silence_seconds=0.3,
    uploads=1,
)


@pytest.fixture(scope="module")
def server(endless, tiny_book_folder, tmp_path_factory):
    """A server with small bounds; in the end it is as well as at first, and nothing was left lying about."""
    import shutil

    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny_book_folder, folder / f"{BOOK}.book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGFOCUS_BOOKS", str(folder))
        with running(endless, LIMITS) as server:
            yield server
            asked = {"model": f"default@{BOOK}", "messages": [{"role": "user", "content": "What?"}], "max_tokens": 2}
            assert server.ask("POST", "/v1/chat/completions", json=asked).status_code == 200
            assert server.ask("GET", "/health").json() == {"status": "ok"}
    assert sorted(path.name for path in folder.iterdir()) == [f"{BOOK}.book", "uploads"]
    assert [path.name for path in (folder / "uploads").iterdir()] == ["lock"]


def upload(server, name, data, **options):
    return server.ask("POST", "/v1/books", files={"file": (name, data)}, **options)


def refused(response, *statuses):
    assert response.status_code in statuses, response.text
    error = response.json()["error"]
    assert error["message"].isprintable()
    assert "Traceback" not in response.text
    return error["message"]


def epub(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="book.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            "<dc:title>&lt;script&gt;alert(1)&lt;/script&gt;</dc:title></metadata>"
            '<manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/></spine></package>',
        )
        for path, text in files.items():
            archive.writestr(path, text)
    return out.getvalue()


def test_a_zip_bomb_as_an_epub(server):
    bomb = epub(**{"a.xhtml": b"<html><body><p>" + b"a" * 40_000_000})
    assert len(bomb) < LIMITS.upload_bytes
    message = refused(upload(server, "bomb.epub", bomb), 400)
    assert "zip bomb" in message
    assert "bomb.epub" in message
    assert str(server.service.shelf.folder) not in message


def test_paths_in_an_archive(server):
    message = refused(upload(server, "a.epub", epub(**{"../../evil.xhtml": "a", "a.xhtml": "<p>b</p>"})), 400)
    assert "outside itself" in message


def test_script_in_a_title_stays_text(server):
    body = "<html><body><h1>One</h1><p>A river. <script>alert(2)</script></p></body></html>"
    response = upload(server, "<script>alert(3)</script>.epub", epub(**{"a.xhtml": body}))
    assert response.status_code == 201
    name = response.json()["id"]
    book = server.until(name, "ready")
    assert book["title"] == "<script>alert(1)</script>"
    assert book["filename"] == "script>.epub"
    for path in (f"/v1/books/{name}", f"/v1/books/{name}/text", f"/v1/books/{name}/sections", "/v1/files"):
        headers = server.ask("GET", path).headers
        assert headers["content-type"].split(";")[0] in ("application/json", "text/plain")
        assert headers["x-content-type-options"] == "nosniff"
    server.ask("DELETE", f"/v1/books/{name}")


@pytest.mark.parametrize(
    "name", ["../../evil.txt", "/etc/cron.d/evil.txt", "..\\evil.txt", "a\x00b.txt", "con.txt", "x" * 5000 + ".txt"]
)
def test_uploaded_names_are_labels(server, name):
    response = upload(server, name, "A river is long. " * 20)
    if response.status_code == 400:  # a name that no form can carry
        refused(response, 400)
        return
    book = server.until(response.json()["id"], "ready")
    assert "/" not in book["filename"]
    assert "\\" not in book["filename"]
    assert len(book["filename"]) <= 200
    server.ask("DELETE", f"/v1/books/{book['id']}")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b""),
        ("a.txt", b"\x00\x01\x02" * 99),
        ("a.exe", b"MZ"),
        ("noending", b"text"),
        ("a.epub", b"PK\x03\x04 no archive"),
        ("a.pdf", b"%PDF-1.7 nothing"),
        ("a.txt.gz", b"\x1f\x8b broken"),
        ("long.txt", b"A river is long. " * 2000),
    ],
)
def test_documents_that_are_none(server, name, data):
    message = refused(upload(server, name, data), 400, 413)
    assert str(server.service.shelf.folder) not in message


@pytest.mark.parametrize("name", ["../story", "..%2f..%2fetc", "%2e%2e", "story.book", "uploads", "story%00", "*"])
def test_paths_are_no_names(server, name):
    for method in ("GET", "DELETE"):
        for path in (f"/v1/books/{name}", f"/v1/files/{name}", f"/v1/books/{name}/text", f"/{name}"):
            assert server.ask(method, path).status_code in (404, 405)
    refused(server.ask("POST", f"/v1/books/{name}/read"), 404, 405)
    asked = {"model": f"default@{name}", "messages": [{"role": "user", "content": "What?"}]}
    refused(server.ask("POST", "/v1/chat/completions", json=asked), 404)


def test_oversized(server):
    asked = {"model": "default", "messages": [{"role": "user", "content": "x" * 20_000}]}
    refused(server.ask("POST", "/v1/chat/completions", json=asked), 413)
    refused(upload(server, "a.txt", b"x" * 400_000), 413)

    def chunks():  # without a length that is told before
        for _ in range(40):
            yield b"x" * 1000

    refused(server.ask("POST", "/v1/chat/completions", content=chunks()), 413)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"no form"),
        ({"Content-Type": "multipart/form-data"}, b"no boundary"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"no parts"),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--",
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n',
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nno file\r\n--x--\r\n',
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 50 + b"--x--\r\n",
        ),
        ({"Content-Type": "application/json"}, b"{}"),
    ],
)
def test_bad_forms(server, headers, body):
    refused(server.ask("POST", "/v1/books", headers=headers, content=body), 400)


def talk(server, *parts, pause=0.0):
    """Send bytes as they are; returns what comes until the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):  # it need not hear us out
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(65536):
                answer += block
    return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01 no HTTP\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_broken_requests(server, request_bytes):
    assert talk(server, request_bytes).startswith(b"HTTP/1.1 400")


def test_endless_heads(server):
    assert talk(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 2_000_000)[:12] in (b"HTTP/1.1 400", b"")


@pytest.mark.parametrize("path", [b"/../../../../etc/passwd", b"//etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/..%5c"])
def test_the_page_has_no_other_files(server, path):
    answer = talk(server, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")


def test_slow_bodies(server):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nConnection: close\r\n\r\n"
    assert talk(server, head, b"{").startswith(b"HTTP/1.1 408"), "silent"
    begun = time.monotonic()
    assert talk(server, head, *[b"{"] * 8, pause=0.2).startswith(b"HTTP/1.1 408"), "a drop at a time"
    assert time.monotonic() - begun < 10


def test_who_says_nothing_is_not_waited_for(endless, shelf, monkeypatch):
    monkeypatch.setattr("longfocus.serving.server.HEAD_SECONDS", 0.2)
    with running(endless, LIMITS) as server:
        assert talk(server) == b""
        assert talk(server, b"GET /health HT") == b""
        assert talk(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET").startswith(b"HTTP/1.1 200")


def test_over_the_bound_of_connections_is_told_and_health_is_answered(endless, shelf):
    with running(endless, replace(LIMITS, connections=3)) as server, contextlib.ExitStack() as opened:
        idle = [opened.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(3)]
        while len(server.server.server_state.connections) < 3:
            time.sleep(0.01)
        response = server.ask("GET", "/v1/books")
        assert "connections are open" in refused(response, 503)
        assert response.headers["retry-after"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert server.ask("GET", "/health").status_code == 200
        more = [opened.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(8)]
        with contextlib.suppress(ConnectionError):
            assert more[-1].recv(1) == b"", "beyond twice the bound it is closed at once"
        for each in (*idle, *more):
            each.close()
        while len(server.server.server_state.connections) > 1:
            time.sleep(0.01)
        assert server.ask("GET", "/v1/books").status_code == 200
        assert 'status="503"' in server.ask("GET", "/metrics").text


def test_who_never_reads_is_cut_off(endless, shelf, monkeypatch):
    monkeypatch.setattr("longfocus.serving.server.UNREAD_SECONDS", 0.2)
    asked = b"GET /v1/books/story/text HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(endless, LIMITS) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(10)
        with pytest.raises(ConnectionError):
            connection.sendall(asked * 1_000_000)
        assert not server.server.server_state.connections
        assert server.ask("GET", "/health").status_code == 200


def test_what_fails_is_counted_and_has_all_headers(endless, shelf, monkeypatch, caplog):
    with running(endless, LIMITS) as server:
        monkeypatch.setattr(server.service.shelf, "names", lambda: 1 / 0)
        response = server.ask("GET", "/v1/books")
        assert "log says why" in refused(response, 500)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-request-id"].startswith("req_")
        assert 'endpoint="books",status="500"' in server.ask("GET", "/metrics").text
        assert server.ask("GET", "/health").headers["x-request-id"] != response.headers["x-request-id"]


def test_deep_json(server):
    refused(server.ask("POST", "/v1/completions", content=b"[" * 9000), 400)
    body = json.dumps({"model": "default", "messages": [{"role": "user", "content": [["a"]] * 9}]})
    refused(server.ask("POST", "/v1/chat/completions", content=body), 400)
