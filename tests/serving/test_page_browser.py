"""The page in a browser, headless Chromium, against a server with a small model: everything that a reader does."""

import re
import time

import pytest

from longfocus.serving.guard import Access
from longfocus.serving.limits import Limits
from tests.conftest import story
from tests.reading.test_documents_epub import epub
from tests.serving.conftest import BOOK, WIDTHS, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
expect = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed").expect

SCRIPT = "<script>window.broken = 1</script>"
QUESTION = "silver lamp?"


@pytest.fixture(scope="module")
def limits():
    """Short answers."""
    return Limits(usual_tokens=24)


def tale(words, title=SCRIPT):
    """Pages of an EPUB, whose second chapter's heading is a script that must not run."""
    first, second = story(words), story(words // 2, seed=1)
    headed = {"Beginning": first, title.replace("<", "&lt;"): second}
    return {
        f"part{number}.xhtml": f"<h1>{heading}</h1>" + "".join(f"<p>{line}</p>" for line in text.split("\n\n"))
        for number, (heading, text) in enumerate(headed.items())
    }


def open_book(page, name):
    page.locator(f'#books a[href$="{name}"]').click()
    expect(page.locator("#text p").first).to_be_visible()


def ask(page, question=QUESTION):
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")


def answered(server, name, question=QUESTION):
    """What the server answers to the same question."""
    body = {"model": f"default@{name}", "messages": [{"role": "user", "content": question}]}
    return server.ask("POST", "/v1/chat/completions", json=body).json()["choices"][0]


def is_in_sight(page, element):
    """Whether an element stands where the text can be seen."""
    box, pane = element.bounding_box(), page.locator("#text").bounding_box()
    return box["y"] >= pane["y"] and box["y"] < pane["y"] + pane["height"]


def lit(page):
    return "".join(page.locator("mark.lit").all_text_contents())


def test_from_a_document_to_the_passage_that_an_answer_rests_on(server, open_page, tmp_path):
    page = open_page(server)
    page.locator("#file").set_input_files(epub(tmp_path / "tale.epub", tale(1500)))
    book = page.locator(".book", has_text="My Book")
    expect(book.locator(".rate")).to_have_text(re.compile(r"\d %, [\d,]+ of [\d,]+ tokens · [\d,]+ tokens/s · .+ left"))
    expect(book.locator("progress")).to_have_attribute("value", re.compile(r"0\.\d+"))
    expect(book.get_by_role("link")).to_have_text("My Book")
    name = book.get_by_role("link").get_attribute("href").rpartition("/")[2]
    open_book(page, name)
    expect(page.locator("#title")).to_be_focused()
    expect(page.locator("#chapters button").last).to_have_text(SCRIPT)
    expect(page.locator("#text h3", has_text=SCRIPT)).to_have_count(1)
    assert page.evaluate("window.broken") is None

    ask(page)
    expect(page.locator(".citation")).to_have_count(3)
    choice = answered(server, name)
    text = server.ask("GET", f"/v1/books/{name}/text").text
    assert page.locator(".answer-text").text_content() == choice["message"]["content"]
    for number, citation in enumerate(choice["citations"]):
        page.locator(".citation").nth(number).click()
        mark = page.locator("mark.lit").first
        expect(mark).to_be_focused()
        assert re.sub(r"\s+", "", lit(page)) == re.sub(r"\s+", "", text[citation["start"] : citation["end"]])
        assert is_in_sight(page, mark)
        expect(page.locator("#announcer")).to_contain_text("The passage is lit in the text")
    assert page.locator(".bar-of-attention").evaluate_all("all => all.filter(bar => bar.clientHeight > 0).length") > 50
    server.ask("DELETE", f"/v1/books/{name}")


def test_the_strip_leads_through_the_book(server, open_page):
    page = open_page(server, path=f"/#/book/{BOOK}")
    strip, length = page.locator("#strip"), len(server.ask("GET", f"/v1/books/{BOOK}/text").text)
    expect(strip).to_have_attribute("aria-valuetext", "0 %, Chapter 1")
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] * 0.5, "y": 5})
    expect(strip).to_have_attribute("aria-valuenow", re.compile("79|80"))
    sections = server.ask("GET", f"/v1/books/{BOOK}/sections").json()["data"]
    here = next(each["label"] for each in sections if each["start"] <= length / 2 < each["end"])
    expect(page.locator("#chapters [aria-current]")).to_have_text(here)
    now = int(strip.get_attribute("aria-valuenow"))
    for key, part in (
        ("ArrowRight", now + 1),
        ("ArrowRight", now + 2),
        ("PageDown", now - 8),
        ("Home", 0),
        ("End", 159),
    ):
        strip.press(key)
        expect(strip).to_have_attribute("aria-valuenow", str(part))
    page.locator("#chapters button").nth(1).click()
    expect(page.locator("#text")).to_be_focused()
    assert is_in_sight(page, page.locator("#text h3").nth(1))


def test_searching(server, open_page):
    page = open_page(server, path=f"/#/book/{BOOK}")
    expect(page.locator("#text p").first).to_be_visible()
    text = server.ask("GET", f"/v1/books/{BOOK}/text").text
    places = [match.start() for match in re.finditer("copper", text, re.IGNORECASE)]
    page.locator("#find").press_sequentially("  COPPER ")
    expect(page.locator("#found")).to_have_text(f"{len(places)} found")
    page.locator("#find").press("Enter")
    expect(page.locator("#found")).to_have_text(f"1 of {len(places)}")
    assert lit(page).lower() == "copper"
    page.locator("#find").press("Shift+Enter")
    expect(page.locator("#found")).to_have_text(f"{len(places)} of {len(places)}")
    assert is_in_sight(page, page.locator("mark.lit"))
    expect(page.locator("#find")).to_be_focused()
    expect(page.locator("#announcer")).to_contain_text("Chapter")
    page.locator("#find").fill("no such words (")
    expect(page.locator("#found")).to_have_text("not found")


def test_without_a_mouse(server, open_page):
    """From the shelf to a passage and back, by keys alone."""
    page = open_page(server)
    expect(page.locator(f'#books a[href$="{BOOK}"]')).to_be_visible()

    def tab_to(selector, key="Tab"):
        passed = []
        for _ in range(60):
            page.keyboard.press(key)
            focused = page.evaluate_handle("document.activeElement")
            assert focused.evaluate("each => each === document.body || each.checkVisibility()"), (
                "focus is where one sees"
            )
            if focused.evaluate("(each, wanted) => each.matches(wanted)", selector):
                return
            passed.append(focused.evaluate("each => each.id || each.textContent"))
        raise AssertionError(f"{selector} cannot be reached, only {passed}")

    tab_to("#skip")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    tab_to("#file")
    tab_to(f'#books a[href$="{BOOK}"]')
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_be_focused()
    tab_to("#strip")
    tab_to("#question")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".citation")).to_have_count(3)
    tab_to(".citation", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("mark.lit").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".citation").last).to_be_focused()
    page.go_back()
    expect(page.locator(f'#books a[href$="{BOOK}"]')).to_be_focused()


def test_side_by_side(server, open_page):
    page = open_page(server, path=f"/#/book/{BOOK}")
    expect(page.locator("#text p").first).to_be_visible()
    page.locator("#compare").check()
    ask(page)
    columns = page.locator(".columns .answer")
    expect(columns.locator("h3")).to_have_text(["Memory", "Last window only", "Retrieval"])
    for number in range(3):
        expect(columns.nth(number)).to_contain_text("in all")
    assert columns.nth(0).locator(".answer-text").text_content() == answered(server, BOOK)["message"]["content"]
    tops = {round(columns.nth(number).bounding_box()["y"]) for number in range(3)}
    assert len(tops) == 1, "they stand beside each other"
    retrieved = columns.nth(2).locator(".citation")
    expect(retrieved).to_have_count(3)
    retrieved.first.click()
    assert re.search("silver|lamp", lit(page), re.IGNORECASE)


def test_a_conversation_goes_on_is_stopped_and_begun_anew(server, open_page):
    page = open_page(server, path=f"/#/book/{BOOK}")
    expect(page.locator("#text p").first).to_be_visible()
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "chat" in request.url else None)
    ask(page, "lamp?")
    expect(page.locator(".citation")).to_have_count(3)
    ask(page, "stone?")
    page.locator("#stop").click()
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator(".turn").last).to_contain_text("Stopped.")
    assert [message["role"] for message in sent[1]["messages"]] == ["user", "assistant", "user"]
    assert sent[1]["messages"][1]["content"] == page.locator(".answer-text").first.text_content()
    ask(page, "word " * 400)
    expect(page.locator(".turn .error")).to_contain_text("shorten it")
    expect(page.locator("#question")).to_have_value(("word " * 400).strip())
    page.locator("#anew").click()
    expect(page.locator(".turn")).to_have_count(0)
    assert page.said == ["error: Failed to load resource: the server responded with a status of 400 (Bad Request)"]
    page.said.clear()  # the browser's own words for the refusal


def test_reading_is_stopped_gone_on_with_and_the_book_deleted(server, open_page):
    page = open_page(server)
    name = f"<img src=x onerror=alert(1)>{SCRIPT}.md"
    document = f"# {SCRIPT}\n\n{story(3000)}".encode()
    page.locator("#file").set_input_files({"name": name.replace("/", ""), "mimeType": "text/plain", "buffer": document})
    book = page.locator(".book", has_text="window.broken")
    expect(book).to_contain_text("tokens/s")
    book.get_by_role("button", name="Stop reading").click()
    expect(book).to_contain_text("not read to its end")
    book.get_by_role("button", name="Go on reading").click()
    expect(book).to_contain_text("tokens/s")
    book.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#confirm-dialog")).to_be_hidden()
    expect(book).to_have_count(1)
    book.get_by_role("button", name="Delete").click()
    page.locator("#confirm-dialog").get_by_role("button", name="Delete").click()
    expect(book).to_have_count(0)
    assert [each["id"] for each in server.ask("GET", "/v1/books").json()["data"]] == [BOOK]
    assert page.evaluate("window.broken") is None


def test_what_is_no_document_is_told(server, open_page):
    page = open_page(server)
    page.locator("#file").set_input_files({"name": "x.epub", "mimeType": "x/y", "buffer": b"no archive"})
    expect(page.locator("#uploads .error")).to_contain_text("Not uploaded: Cannot read 'x.epub'")
    page.locator("#uploads").get_by_role("button", name="Close").click()
    expect(page.locator("#uploads li")).to_have_count(0)
    assert len(page.said) == 1
    assert "400" in page.said.pop()
    page.goto(f"{server.base}/#/book/none")
    expect(page.locator("#trouble")).to_contain_text("there is no book")
    expect(page.locator("#shelf")).to_be_visible()
    assert all("404" in each for each in page.said)
    page.said.clear()


def test_a_key_is_asked_for(endless, shelf, open_page):
    key = "a key".replace(" ", "-") * 4
    with running(endless, access=Access((key,))) as server:
        page = open_page(server)
        dialog = page.locator("#key-dialog")
        expect(dialog).to_contain_text("wants a key")
        page.locator("#key").fill("another-key-that-is-none")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("does not take this key")
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        page.locator("#file").set_input_files(
            {"name": "a.txt", "mimeType": "text/plain", "buffer": story(100).encode()}
        )
        expect(page.locator(".book a")).to_have_count(2)
        open_book(page, BOOK)
        ask(page)
        expect(page.locator(".citation")).to_have_count(3)
        page.reload()
        expect(page.locator("#title")).to_have_text("A Story")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert all("401" in each for each in page.said)
        page.said.clear()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(server, open_page, width, scheme, tmp_path):
    """Nothing is cut off to the side, at both widths and in both schemes; controls are large enough for a finger."""
    page = open_page(server, width, color_scheme=scheme, reduced_motion="reduce")

    def fits(name):
        page.screenshot(path=tmp_path / f"{name}.png")  # for who wants to look
        wide = "all => all.filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.id)"
        assert page.locator("main *:not(.unseen)").evaluate_all(wide) == []
        small = (
            "all => all.filter(each => each.checkVisibility() && each.clientHeight < 24).map(each => each.outerHTML)"
        )
        assert page.locator("button, .button").evaluate_all(small) == []

    expect(page.locator(f'#books a[href$="{BOOK}"]')).to_be_visible()
    fits("shelf")
    open_book(page, BOOK)
    fits("text")
    if width == "phone":
        page.locator("#contents-button").click()
        expect(page.locator("#chapters [aria-current]")).to_be_focused()
        fits("chapters")
        page.keyboard.press("Escape")
        expect(page.locator("#contents")).to_be_hidden()
        expect(page.locator("#contents-button")).to_be_focused()
        page.locator("#show-talk").click()
    page.locator("#compare").check()
    ask(page)
    expect(page.locator(".columns .answer", has_text="in all")).to_have_count(3)
    fits("compared")
    page.locator(".citation").first.click()
    expect(page.locator("mark.lit").first).to_be_focused()
    fits("cited")


def test_a_long_text_stays_smooth(server, open_page):
    """Two million characters in place of the book's text: opened, searched, gone through, without long waits."""
    text = story(330_000, seed=3) + "\n\nThe zanzibar word.\n"
    assert len(text) > 2_000_000
    starts = [match.start() for match in re.finditer(r"^Chapter ", text, re.MULTILINE)]
    ends = [*starts[1:], len(text)]
    sections = [
        {"kind": "chapter", "label": f"Chapter {number}", "start": start, "end": end}
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    page = open_page(server)
    page.route("**/text", lambda route: route.fulfill(body=text, content_type="text/plain; charset=utf-8"))
    page.route("**/sections", lambda route: route.fulfill(json={"data": sections}))
    expect(page.locator(f'#books a[href$="{BOOK}"]')).to_be_visible()
    page.evaluate(
        """() => {
            window.longest = 0;
            const note = (list) => list.getEntries().forEach((each) => (longest = Math.max(longest, each.duration)));
            new PerformanceObserver(note).observe({ entryTypes: ["longtask"] });
        }"""
    )
    begun = time.monotonic()
    open_book(page, BOOK)
    opened = time.monotonic() - begun
    page.locator("#find").fill("zanzibar")
    page.locator("#find").press("Enter")
    expect(page.locator("mark.lit")).to_have_text("zanzibar")
    assert is_in_sight(page, page.locator("mark.lit"))
    page.locator("#strip").press("Home")
    expect(page.locator("#text h3").first).to_be_in_viewport()
    page.locator("#text").hover()
    for _ in range(20):
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(20)
    page.locator("#chapters button").nth(len(starts) // 2).click()
    expect(page.locator("#chapters [aria-current]")).to_have_text(f"Chapter {len(starts) // 2}")
    paragraphs = page.locator("#text p")
    expect(paragraphs.last).to_contain_text("zanzibar")
    near = "all => all.filter(each => each.checkVisibility({ contentVisibilityAuto: true })).length"
    assert paragraphs.evaluate_all(near) < 500 < 5000 < paragraphs.count(), "what is far away is not laid out"
    assert opened < 20
    assert page.evaluate("longest") < 5000, "nothing keeps the page from answering for long"


@pytest.mark.parametrize("text", ["", "plain", "🦊", "a🦊b" * 3000, "🦊" * 5000, "x" * 4095 + "🦊" + "y" * 5000])
def test_places_count_characters(server, open_page, text):
    """JavaScript counts otherwise; the server's numbers have to lead to the same characters."""
    page = open_page(server)
    places = sorted(
        {0, len(text), *range(0, len(text), 331), *range(max(len(text) - 3, 0), len(text)), 4095, 4096, 4097}
    )
    places = [place for place in places if place <= len(text)]
    found = page.evaluate(
        """async ([text, places]) => {
            const { BookText } = await import("/text.js");
            const book = new BookText(text, []);
            const units = places.map((place) => book.unitOf(place));
            return [book.length, units, units.map((unit) => book.placeOf(unit))];
        }""",
        [text, places],
    )
    units = [len(text[:place].encode("utf-16-le")) // 2 for place in places]
    assert found == [len(text), units, places]


def test_paragraphs_are_the_text_and_nothing_is_lost(server, open_page):
    poem = "Roses are red\nViolets are blue\nSugar is sweet"
    prose = "\n".join(["these lines were made to fit a page of some width, so they"] * 5)
    text = f"\ufeffHead\n\n{poem}\n\n{prose}\n \n{'word ' * 3000}\n\n{'🦊' * 5000}\n"
    page = open_page(server)
    found = page.evaluate(
        """async (text) => {
            const { BookText } = await import("/text.js");
            const book = new BookText(text, [{ kind: "chapter", label: "Head", start: 0, end: text.length }]);
            return book.paragraphs.map(({ start, end, kind, goesOn }) => [text.slice(start, end), kind, goesOn]);
        }""",
        text,
    )
    assert [each[1] for each in found[:3]] == ["heading", "lines", "prose"]
    assert found[1][0] == poem
    assert max(len(each[0].encode("utf-16-le")) // 2 for each in found) <= 4001
    assert any(goes_on for *_, goes_on in found)
    assert re.sub(r"[\s\ufeff]", "", "".join(each[0] for each in found)) == re.sub(r"[\s\ufeff]", "", text)


def test_retrieval_finds_what_bm25_finds(server, open_page):
    """The same passages in the same order as the package that evaluations use, which leaves out the same words here."""
    bm25s = pytest.importorskip("bm25s")
    text, query = story(3000), "silver harbour theatre"
    page = open_page(server)
    cut, best, prompt = page.evaluate(
        """async ([text, query]) => {
            const { BookText } = await import("/text.js");
            const { Passages, withPassages } = await import("/retrieval.js");
            const passages = new Passages(new BookText(text, []));
            const words = [...new Set(text.toLowerCase().match(/[\\p{L}\\p{N}]+/gu))].join(" ");
            const all = passages.best(words, 1e6).sort((one, other) => one.start - other.start);
            return [all, passages.best(query, 3), withPassages(query, passages.best(query, 3))];
        }""",
        [text, query],
    )
    assert all(text[each["start"] : each["end"]] == each["text"] for each in cut)
    assert re.sub(r"\s", "", "".join(each["text"] for each in cut)) == re.sub(r"\s", "", text)
    assert max(len(each["text"]) for each in cut) <= 900
    words = [re.findall(r"\w+", each["text"].lower()) for each in cut]
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene", backend="numpy")
    index.index(words, show_progress=False)
    scores = index.get_scores(query.split())
    found = [each["score"] for each in best]
    assert found == pytest.approx(sorted(scores.tolist(), reverse=True)[:3], rel=1e-4)
    assert prompt.index(min(best, key=lambda each: each["start"])["text"]) < prompt.index(query)
