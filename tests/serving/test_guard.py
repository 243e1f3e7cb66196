"""Who may ask, and what every response carries."""

import re

import pytest

from longfocus.errors import RequestError
from longfocus.serving.guard import LOOPBACK, Access, access_for, is_loopback
from tests.serving.conftest import running

KEY = "a-key-of-enough-letters"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.1.2.3"])
def test_this_machine_needs_no_key(host):
    assert is_loopback(host)
    assert "localhost" in access_for(host, (), ("Books.example",)).hosts
    assert "books.example" in access_for(host, (), ("Books.example",)).hosts


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_beyond_this_machine_there_must_be_a_key(host):
    with pytest.raises(RequestError, match="set a key"):
        access_for(host, (), ())
    assert access_for(host, (KEY,), ()).hosts == ()
    assert set(access_for(host, (KEY,), ("Books.example",)).hosts) == {"books.example", *LOOPBACK}


def test_behind_a_proxy_there_must_be_a_key():
    with pytest.raises(RequestError, match=r"set a key .* leave out --proxy"):
        access_for("127.0.0.1", (), ("books.example",), ("127.0.0.1",))
    assert access_for("127.0.0.1", (KEY,), ("books.example",), ("127.0.0.1",)).keys == (KEY,)


@pytest.mark.parametrize("key", ["short", "with a space in it here", "ключ-из-многих-букв-тут"])
def test_a_key_that_is_none(key):
    with pytest.raises(RequestError, match="16 characters"):
        access_for("0.0.0.0", (key,), ())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:80", "[::1]evil"])
def test_a_name_that_is_not_ours_is_not_served(server, host):
    """A page elsewhere can let its own name point to this machine."""
    response = server.ask("GET", "/v1/books", headers={"Host": host})
    assert response.status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "LOCALHOST:80", "[::1]:80"])
def test_names_that_are_ours(server, host):
    assert server.ask("GET", "/v1/books", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", "file://"])
def test_pages_of_others_may_not_ask(server, origin):
    for method in ("GET", "POST"):
        response = server.ask(method, "/v1/books", headers={"Origin": origin})
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
    assert server.ask("OPTIONS", "/v1/books", headers={"Origin": origin}).status_code == 403


def test_our_own_page_may_ask(server):
    response = server.ask("GET", "/v1/books", headers={"Origin": server.base})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/v1/books", "/v1/books/none", "/nothing", "/health", "/metrics", "/v1/books/story/text"]
)
def test_every_response_says_what_a_page_may_use(server, path):
    headers = server.ask("GET", path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_the_page_needs_nothing_beyond_this_server(server):
    page = server.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert re.findall(r"<script[^>]*>[^<]*", page.text) == ['<script type="module" src="main.js">']
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",), ("192.0.2.1",)])
def test_who_asks_is_told_by_a_proxy_that_is_trusted_and_by_no_other(endless, shelf, proxies):
    access = Access((KEY,), ("books.example", *LOOPBACK))
    known = {"Authorization": f"Bearer {KEY}", "Host": "books.example:8443", "X-Forwarded-Proto": "https"}
    with running(endless, access=access, proxies=proxies) as server:
        names = {}
        for address in ("198.51.100.7", "198.51.100.8"):
            headers = known | {"X-Forwarded-For": address, "Origin": "https://books.example:8443"}
            response = server.ask("POST", "/v1/books", headers=headers, files={"file": ("a.txt", b"A river. " * 9)})
            assert response.status_code == 201, response.text
            names[address] = response.json()["id"]
        for address, name in names.items():
            heard = address if proxies == ("127.0.0.1",) else "127.0.0.1"
            assert server.service.kept.note(name).client == f"key 0@{heard}"
        headers = known | {"Origin": "https://books.example"}
        assert server.ask("GET", "/v1/books", headers=headers).status_code == 403, "another port is another server"


def test_keys(endless, shelf):
    with running(endless, access=Access((KEY, KEY[::-1]))) as server:
        for key in (None, "Bearer wrong-key-wrong-key", KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x"):
            headers = {} if key is None else {"Authorization": key}
            for path in ("/v1/books", "/v1/nothing", "/metrics"):
                response = server.ask("GET", path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.json()["error"]["code"] == "invalid_api_key"
                assert KEY not in response.text
        for key in (KEY, KEY[::-1]):
            with server.client(api_key=key) as client:
                assert [file.id for file in client.files.list()] == ["story"]
        assert server.ask("GET", "/health").json() == {"status": "ok"}
        assert server.ask("GET", "/").status_code == 200
