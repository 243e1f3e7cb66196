"""A server in a thread of this process, on a free port, with a small model and a Book that it read."""

import os
import shutil
import threading
import time
from contextlib import contextmanager

import httpx2
import openai
import pytest

from longfocus.memory.library import BOOKS_VARIABLE
from longfocus.serving.guard import Access
from longfocus.serving.limits import Limits

BOOK = "story"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 90_000
WIDTHS = {"wide": (1280, 800), "phone": (390, 800)}


@pytest.fixture(scope="package", autouse=True)
def on_one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def endless(tiny_model):
    """The small model with an end of answers that never comes: each has all its tokens."""
    from copy import deepcopy
    from dataclasses import replace

    model = deepcopy(tiny_model.model)
    model.generation_config.eos_token_id = 399
    model.lm_head.weight[399] = 0
    return replace(tiny_model, model=model)


class Running:
    """A server that runs: its address, its service, and a client's plain way in."""

    def __init__(self, server, port):
        self.server = server
        self.service = server.service
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.http = httpx2.Client(timeout=60, trust_env=False, verify=False)  # without certificates, which take time

    def client(self, api_key="none"):
        http = openai.DefaultHttpxClient(trust_env=False, verify=False)
        return openai.OpenAI(base_url=f"{self.base}/v1", api_key=api_key, max_retries=0, timeout=60, http_client=http)

    def ask(self, method, path, **options):
        return self.http.request(method, self.base + path, **options)

    def until(self, name, *statuses):
        """A Book, once it has one of these states."""
        for _ in range(1200):
            book = self.ask("GET", f"/v1/books/{name}").json()
            if book["status"] in statuses:
                return book
            time.sleep(0.05)
        raise AssertionError(book)


@contextmanager
def running(loaded, limits=None, access=None, proxies=()):
    """A server, until the block ends."""
    from longfocus.serving.server import Server, listen
    from longfocus.serving.service import Service

    listening = listen("127.0.0.1", 0)
    server = Server(Service(loaded, limits or Limits()), access or Access(), proxies)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        with (made := Running(server, listening.getsockname()[1])).http:
            yield made
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def shelf(tmp_path, monkeypatch, tiny_book_folder):
    """A shelf of this test's own, with the Book."""
    folder = tmp_path / "shelf"
    shutil.copytree(tiny_book_folder, folder / f"{BOOK}.book")
    monkeypatch.setenv(BOOKS_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="module")
def limits():
    """Those of the shared server; a file may have its own."""
    return Limits()


@pytest.fixture(scope="module")
def server(endless, tiny_book_folder, tmp_path_factory, limits):
    """A server that the tests of a file share."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny_book_folder, folder / f"{BOOK}.book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BOOKS_VARIABLE, str(folder))
        with running(endless, limits) as server:
            yield server


@pytest.fixture(scope="module")
def chromium():
    """A browser, for tests of the page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as started:
        rootless = ["--no-sandbox"] if os.getuid() == 0 else []  # its sandbox refuses the superuser
        browser = started.chromium.launch(executable_path=CHROMIUM, args=rootless)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens the page in a browser of its own; at the end nothing may have gone wrong, nor asked another server."""
    opened = []

    def open_it(server, width="wide", path="/", **settings):
        wide, high = WIDTHS[width]
        context = chromium.new_context(viewport={"width": wide, "height": high}, **settings)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        said, asked = [], []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url))
        opened.append((server, context, said, asked))
        page.goto(server.base + path)
        page.said = said
        return page

    yield open_it
    for server, context, said, asked in opened:
        context.close()
        assert not said
        assert asked
        assert all(url.startswith(f"{server.base}/") for url in asked)
