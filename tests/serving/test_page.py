"""The page's files: what they may hold, and how they are served. `test_page_browser.py` uses them."""

import re

import pytest

from longfocus.serving.application import PAGE
from longfocus.serving.limits import Limits

FILES = sorted(path for path in PAGE.iterdir() if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
LONGEST = 450


def name_of(path):
    return path.name


def test_every_file_that_the_page_names_is_served_with_its_type(server):
    types = {".js": ("text/javascript", "application/javascript"), ".css": ("text/css",), ".svg": ("image/svg+xml",)}
    index = server.ask("GET", "/")
    assert index.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in index.headers["content-security-policy"]
    named = set(re.findall(r'(?:src|href)="([\w.]+)"', index.text))
    for path in SCRIPTS:
        named |= set(re.findall(r'from "\./([\w.]+)"', path.read_text("utf-8")))
    assert named == {path.name for path in FILES} - {"index.html"}, (
        "each file is named, and each that is named is there"
    )
    for name in named:
        response = server.ask("GET", f"/{name}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(types[f".{name.rpartition('.')[2]}"])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_read_as_code_or_comes_from_elsewhere(path):
    text = path.read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|Function\(", text)
    assert not re.search(r"(?:https?:)?//[\w-]+\.", text.replace("http://www.w3.org/2000/svg", ""))
    assert len(text.splitlines()) <= LONGEST, "split it by idea"


def test_the_policy_holds_for_what_stands_in_the_html():
    """It forbids script and style between tags, and in attributes."""
    text = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert re.findall(r"<script[^>]*>", text) == ['<script type="module" src="main.js">']
    ids = re.findall(r'\bid="([\w-]+)"', text)
    assert len(ids) == len(set(ids))
    for referred in re.findall(r'(?:for|aria-(?:labelledby|describedby|controls))="([\w-]+)"', text):
        assert referred in ids
    for path in SCRIPTS:
        for wanted in re.findall(r'\bat\("([\w-]+)"\)', path.read_text("utf-8")):
            assert wanted in ids, f"{path.name} wants an element that is not there"


def test_the_page_can_learn_what_it_may_send(server):
    told = server.ask("GET", "/v1/limits").json()
    assert told["upload_bytes"] == Limits().upload_bytes
    assert {".txt", ".md", ".html", ".epub", ".pdf"} <= set(told["suffixes"])
    assert told["model"]
    assert "/" not in told["model"], "no path of the server's"
