"""What the page shows is what the server says, when it says it; and all can see and hear it."""

import re

import pytest

from longfocus.serving.limits import Limits
from tests.conftest import story
from tests.serving.conftest import BOOK, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
expect = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed").expect

QUESTION = "silver lamp?"
PARTS = 160
CONTROLS = {"button", "link", "textbox", "searchbox", "checkbox", "slider", "dialog", "progressbar", "region", "list"}
CONTRAST = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].map((each, place) => (place < 3 ? each : each / 255));
    };
    const over = (upper, lower) => [0, 1, 2].map((each) => upper[each] * upper[3] + lower[each] * (1 - upper[3]));
    const light = (color) => {
        const [red, green, blue] = color.map((each) => {
            const share = each / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ground = (element) => {
        const grounds = [];
        for (let each = element; each; each = each.parentElement)
            grounds.unshift(rgba(getComputedStyle(each).backgroundColor));
        return grounds.reduce((lower, upper) => over(upper, lower), [255, 255, 255]);
    };
    const found = [];
    const look = (element, color, what) => {
        const below = ground(element);
        const [less, more] = [light(over(rgba(color), below)), light(below)].sort((one, other) => one - other);
        found.push([(more + 0.05) / (less + 0.05), what]);
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
        const element = text.parentElement;
        if (!text.data.trim() || !element.checkVisibility() || element.closest(".unseen, noscript, .skip")) continue;
        look(element, getComputedStyle(element).color, text.data.trim().slice(0, 40));
    }
    for (const each of document.querySelectorAll("input, textarea")) {
        if (!each.checkVisibility() || each.matches(".unseen")) continue;
        look(each, getComputedStyle(each).color, each.id);
        if (each.placeholder) look(each, getComputedStyle(each, "::placeholder").color, each.placeholder);
    }
    return found;
}"""
"""The contrast of all text that is seen with what is behind it, as WCAG 2 counts it, and the text."""
ENOUGH = 4.5


@pytest.fixture(scope="module")
def limits():
    """Short answers."""
    return Limits(usual_tokens=24)


def open_book(page):
    page.locator(f'#books a[href$="{BOOK}"]').click()
    expect(page.locator("#text p").first).to_be_visible()


def ask(page, question=QUESTION):
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")


def answered(server, **body):
    """What the server answers to the same request, not streamed."""
    asked = {"model": f"default@{BOOK}", "messages": [{"role": "user", "content": QUESTION}]}
    response = server.ask("POST", "/v1/chat/completions", json=asked | body | {"stream": False})
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def drag(page, kind, at, *paths):
    """Drag files of this machine over the page, as a hand does."""
    box = page.locator(at).bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    page.context.new_cdp_session(page).send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def test_documents_are_dropped(server, open_page, tmp_path):
    """On the place for them, and beside it, where a browser would open the file in place of the page."""
    page = open_page(server)
    expect(page.locator(f'#books a[href$="{BOOK}"]')).to_be_visible()
    for at, title in (("#drop", "dropped"), (".top", "beside")):
        (tmp_path / f"{title}.txt").write_text(story(60), encoding="utf-8")
        drag(page, "dragEnter", at, tmp_path / f"{title}.txt")
        drag(page, "dragOver", at, tmp_path / f"{title}.txt")
        expect(page.locator("#drop")).to_have_class("drop over")
        drag(page, "drop", at, tmp_path / f"{title}.txt")
        expect(page.locator("#drop")).to_have_class("drop")
        link = page.locator(".book a", has_text=title)
        expect(link).to_have_count(1)
        name = link.get_attribute("href").rpartition("/")[2]
        assert server.ask("GET", f"/v1/books/{name}").json()["filename"] == f"{title}.txt"
        server.ask("DELETE", f"/v1/books/{name}")
    assert page.url == f"{server.base}/"


def test_an_answer_is_seen_while_it_is_written(endless, shelf, open_page):
    with running(endless, Limits(usual_tokens=3000)) as server:
        page = open_page(server)
        open_book(page)
        ask(page)
        turn = page.locator(".turn")
        expect(turn).to_contain_text("Writing …")
        lengths = []
        for _ in range(3):
            before = lengths[-1] if lengths else 0
            page.wait_for_function(
                "least => document.querySelector('.answer-text').textContent.length > least", arg=before
            )
            lengths.append(len(turn.locator(".answer-text").text_content()))
            expect(turn).to_contain_text("Writing …")
        assert lengths == sorted(set(lengths))
        page.locator("#stop").click()
        expect(turn).to_contain_text("Stopped.")
        text = turn.locator(".answer-text").text_content()
        assert len(text) >= lengths[-1]
        assert text.startswith(answered(server, max_tokens=5)["message"]["content"])


def test_the_strip_shows_the_shares_that_the_server_tells(server, open_page):
    page = open_page(server)
    open_book(page)
    bars = page.locator(".bar-of-attention")
    heights = "all => all.map(bar => parseFloat(bar.style.height || 0))"
    assert not any(bars.evaluate_all(heights))
    ask(page)
    expect(page.locator(".citation")).to_have_count(3)
    shares = answered(server, attention=PARTS)["attention"]
    assert len(shares) == PARTS
    assert len({round(share, 4) for share in shares}) > 5
    wanted = [max(100 * (share / max(shares)) ** 0.5, 4) if share else 0 for share in shares]
    assert bars.evaluate_all(heights) == pytest.approx(wanted, abs=0.5)
    page.locator("#anew").click()
    assert not any(bars.evaluate_all(heights))


def test_each_column_asks_in_its_own_way(server, open_page):
    page = open_page(server)
    open_book(page)
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "chat" in request.url else None)
    page.locator("#compare").check()
    ask(page)
    columns = page.locator(".columns .answer")
    for number in range(3):
        expect(columns.nth(number)).to_contain_text("in all")
    memory, window, retrieval = sent
    assert [body["model"] for body in sent] == [f"default@{BOOK}"] * 2 + ["default"]
    assert [body.get("uses") for body in sent] == [None, "window", None]
    assert memory["messages"] == window["messages"] == [{"role": "user", "content": QUESTION}]
    (given,) = retrieval["messages"]
    assert given["content"].endswith(QUESTION)
    assert len(given["content"]) > len(QUESTION) + 300
    texts = [columns.nth(number).locator(".answer-text").text_content() for number in range(3)]
    assert texts == [answered(server, **body)["message"]["content"] for body in sent]
    assert len(set(texts)) > 1
    expect(columns.nth(1).locator(".citation")).to_have_count(0)


def heard(page):
    """Roles and names of what assistive technology is told of, by Chromium's own tree."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in CONTROLS
    ]


def test_all_controls_have_names(server, open_page):
    page = open_page(server)
    expect(page.locator(f'#books a[href$="{BOOK}"]')).to_be_visible()

    def named(*wanted):
        found = heard(page)
        assert [role for role, name in found if not name and role != "list"] == []
        assert set(wanted) <= set(found), found

    named(("button", "Add a document"), ("link", "A Story"), ("list", "Books on the shelf"))
    page.locator("#books").get_by_role("button", name="Delete").click()
    expect(page.locator("#confirm-dialog")).to_be_visible()
    named(("dialog", "Delete this book?"), ("button", "Keep it"))
    page.keyboard.press("Escape")
    open_book(page)
    ask(page)
    expect(page.locator(".citation")).to_have_count(3)
    named(
        ("slider", "Place in the book"),
        ("searchbox", "Search in the text"),
        ("textbox", "Your question"),
        ("checkbox", "Side by side"),
        ("button", "Ask"),
        ("button", "Start anew"),
        ("button", "Chapter 1"),
        ("region", "The book’s text"),
        ("list", "Rests on"),
    )
    cited = [name for role, name in heard(page) if role == "button" and re.match(r"[123] .*%", name)]
    assert len(cited) == 3, "a passage is told by its place, its share and its words"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(server, open_page, scheme):
    page = open_page(server, color_scheme=scheme, reduced_motion="reduce")

    def stands_out(least):
        found = page.evaluate(CONTRAST)
        assert len(found) > least
        assert [each for each in found if each[0] < ENOUGH] == []

    expect(page.locator(f'#books a[href$="{BOOK}"]')).to_be_visible()
    page.locator("#file").set_input_files({"name": "x.epub", "mimeType": "x/y", "buffer": b"no archive"})
    expect(page.locator("#uploads .error")).to_be_visible()
    stands_out(8)
    page.locator("#books").get_by_role("button", name="Delete").click()
    stands_out(10)
    page.keyboard.press("Escape")
    open_book(page)
    ask(page)
    expect(page.locator(".citation")).to_have_count(3)
    page.locator(".citation").first.click()
    expect(page.locator("mark.lit").first).to_be_focused()
    stands_out(30)
    page.locator("#compare").check()
    ask(page)
    expect(page.locator(".columns .answer", has_text="in all")).to_have_count(3)
    stands_out(30)
    assert len(page.said) == 1
    assert "400" in page.said.pop()
