"""`longfocus serve` in a process of its own: what it refuses, and that it survives being killed."""

import os
import re
import signal
import subprocess
import sys
import time

import httpx2
import pytest

from longfocus import cli
from longfocus.errors import RequestError
from tests.conftest import story

SERVE = "from longfocus import cli; cli._verb('serve')(prog_name='longfocus serve')"


def serve(*arguments):
    return cli._verb("serve").main(list(arguments), standalone_mode=False)


def test_it_does_not_listen_beyond_this_machine_without_a_key(monkeypatch):
    monkeypatch.delenv("LONGFOCUS_API_KEY", raising=False)
    with pytest.raises(RequestError, match="set a key in LONGFOCUS_API_KEY"):
        serve("--host", "0.0.0.0")


def test_it_does_not_stand_behind_a_proxy_without_a_key(monkeypatch):
    monkeypatch.delenv("LONGFOCUS_API_KEY", raising=False)
    with pytest.raises(RequestError, match="a proxy lets other machines in; set a key"):
        serve("--proxy", "127.0.0.1", "--allow-host", "books.example")


@pytest.mark.parametrize("content", [None, "", "# nothing\n", "short\n"])
def test_files_without_a_key(tmp_path, content):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RequestError, match="key"):
        serve("--key-file", str(path), "--host", "0.0.0.0")


def test_an_address_that_is_taken_or_none():
    from longfocus.serving.server import listen

    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        for host, number in (("127.0.0.1", port), ("no.such.host.invalid", 0), ("127.0.0.1", 70000)):
            with pytest.raises(RequestError, match="cannot listen"):
                listen(host, number)


class Process:
    """A server in a process of its own."""

    def __init__(self, model, shelf, cache):
        environment = os.environ | {
            "LONGFOCUS_BOOKS": str(shelf),
            "LONGFOCUS_CACHE": str(cache),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", SERVE, "--model", str(model), "--window", "64", "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stderr:
            if found := re.search(r"at (http://127\.0\.0\.1:\d+)/v1", line):
                break
        self.http = httpx2.Client(base_url=found[1], timeout=60, trust_env=False, verify=False)

    def end(self, how):
        self.http.close()
        self.process.send_signal(how)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def until(self, name, status):
        for _ in range(2000):
            book = self.http.get(f"/v1/books/{name}").json()
            if book["status"] == status:
                return book
            time.sleep(0.05)
        raise AssertionError(book)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_while_it_reads_and_answers_it_goes_on(tiny_folder, tmp_path):
    started = Process(tiny_folder, tmp_path / "shelf", tmp_path / "cache")
    short, long = (
        started.http.post("/v1/books", files={"file": ("a.txt", story(words).encode())}).json()["id"]
        for words in (200, 8_000)
    )
    ready = started.until(short, "ready")
    asked = {"model": f"default@{short}", "messages": [{"role": "user", "content": "What?"}], "max_tokens": 8}
    answer = started.http.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]
    started.until(long, "reading")
    with started.http.stream(
        "POST", "/v1/chat/completions", json=asked | {"stream": True, "max_tokens": 2000}
    ) as stream:
        next(stream.iter_lines())
        before = started.http.get(f"/v1/books/{long}").json()
        assert before["status"] == "reading"
        started.process.kill()
    assert started.end(signal.SIGKILL) == -signal.SIGKILL
    again = Process(tiny_folder, tmp_path / "shelf", tmp_path / "cache")
    after = again.http.get(f"/v1/books/{long}").json()
    assert after["status"] in ("waiting", "reading")
    assert after["tokens_read"] >= before["tokens_read"]
    assert again.http.get(f"/v1/books/{short}").json() == ready
    assert again.http.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"] == answer
    assert again.until(long, "ready")["tokens_read"] == before["tokens"]
    assert again.end(signal.SIGTERM) == -signal.SIGTERM
