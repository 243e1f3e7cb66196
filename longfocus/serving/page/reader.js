/** A book that is open: its text with chapters and search, the conversation beside it, and the strip above both. */

import { bookPath, textOf, told } from "./api.js";
import { Conversation } from "./conversation.js";
import { announce, at, make, say } from "./elements.js";
import { Search } from "./search.js";
import { Strip } from "./strip.js";
import { BookText } from "./text.js";
import { TextView } from "./textview.js";

export class Reader {
  #stop = new AbortController();
  #title = "";
  #book = null;
  #view = null;
  #strip = null;
  #conversation = null;
  #chapters = [];
  #cameFrom = null; // the citation that led to a passage

  /** @param {string} name - The book's. */
  constructor(name) {
    this.name = name;
  }

  /**
   * Show the book; what was said about it is still there.
   *
   * @throws {Refused} It cannot be read.
   */
  async show() {
    if (!this.#book) {
      say(at("title"), "Opening …");
      await this.#open();
    }
    say(at("title"), this.#title);
    document.title = `${this.#title} · Longfocus`;
    at("title").focus();
  }

  /** It is not shown for a while. */
  rest() {
    this.#showContents(false);
  }

  /** Let go of the page. */
  close() {
    this.#stop.abort();
    this.#conversation?.close();
    this.#view?.close();
  }

  async #open() {
    const { signal } = this.#stop;
    const paths = [bookPath(this.name), bookPath(this.name, "/sections")];
    const asked = [...paths.map((path) => told(path, { signal })), textOf(this.name, signal)];
    const [{ title, id }, { data: sections }, text] = await Promise.all(asked);
    this.#title = title || id;
    say(at("title"), this.#title);
    const book = (this.#book = new BookText(text, sections));
    this.#strip = new Strip(at("strip"), book, (place) => this.#go(place));
    this.#showPane("text");
    this.#listChapters();
    this.#view = new TextView(at("text"), book, (place) => this.#moved(place));
    new Search(book, this.#view);
    const attend = (attention) => this.#strip.tellAttention(attention);
    this.#conversation = new Conversation(this.name, book, (passage, button) => this.#cite(passage, button), attend);
    at("show-text").onclick = () => this.#showPane("text");
    at("show-talk").onclick = () => this.#showPane("talk");
    at("contents-button").onclick = () => this.#showContents(!at("contents").classList.contains("open"));
    at("text-pane").onkeydown = (event) => {
      if (event.key === "Escape") this.#back();
    };
    at("contents").onkeydown = (event) => {
      if (event.key === "Escape") this.#showContents(false);
    };
    this.#moved(0);
  }

  async #go(place) {
    this.#showPane("text");
    this.#moved(place);
    await this.#view.go(place);
  }

  /** Show where the reader is by now. */
  #moved(place) {
    this.#strip.tellPlace(place);
    const [section] = this.#book.sectionsAt(place);
    for (const { button, of } of this.#chapters) {
      if ((of === section) === button.hasAttribute("aria-current")) continue;
      if (of === section) button.setAttribute("aria-current", "location");
      else button.removeAttribute("aria-current");
      if (of === section) button.scrollIntoView({ block: "nearest" });
    }
  }

  /** Light up a passage, with the focus on it; Escape leads back. */
  async #cite({ start, end, chapter, page }, button) {
    const place = [chapter, page && `page ${page}`].filter(Boolean).join(", ");
    this.#cameFrom = button;
    this.#showPane("text");
    const mark = await this.#view.light(start, end, place);
    this.#moved(start);
    mark?.focus({ preventScroll: true });
    announce(`The passage is lit in the text${place ? `: ${place}` : ""}. Escape leads back to the answer.`);
  }

  #back() {
    if (at("contents").classList.contains("open")) {
      this.#showContents(false);
    } else if (this.#cameFrom?.isConnected && document.activeElement !== at("find")) {
      this.#showPane("talk");
      this.#cameFrom.focus();
    }
  }

  #listChapters() {
    const { chapters, pages } = this.#book;
    const listed = chapters.length ? chapters : pages;
    const what = chapters.length ? "Chapters" : "Pages";
    say(at("contents-heading"), what);
    say(at("contents-button"), what);
    at("reader").classList.toggle("undivided", !listed.length);
    this.#chapters = listed.map((section) => {
      const button = make("button", { type: "button" }, section.label || "…");
      button.addEventListener("click", () => {
        this.#showContents(false);
        this.#go(section.start);
        at("text").focus({ preventScroll: true });
      });
      return { button, of: section };
    });
    at("chapters").replaceChildren(...this.#chapters.map(({ button }) => make("li", {}, button)));
  }

  #showContents(isOpen) {
    const hadFocus = at("contents").contains(document.activeElement);
    at("contents").classList.toggle("open", isOpen);
    at("contents-button").setAttribute("aria-expanded", isOpen);
    if (isOpen) (at("chapters").querySelector("[aria-current]") ?? at("chapters").querySelector("button"))?.focus();
    else if (hadFocus) at("contents-button").focus();
  }

  /** Where there is room for one pane only, show this one. */
  #showPane(pane) {
    at("reader").dataset.pane = pane;
    at("show-text").setAttribute("aria-pressed", pane === "text");
    at("show-talk").setAttribute("aria-pressed", pane === "talk");
  }
}
