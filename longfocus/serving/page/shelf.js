/** The shelf: books, what is being read, and what is on its way here. */

import { bookPath, events, reason, told, wasStopped } from "./api.js";
import { announce, at, trouble } from "./elements.js";
import { ShelvedBook } from "./shelved.js";
import { Uploads } from "./uploads.js";

const LOOK_AGAIN = 10_000;

export class Shelf {
  #books = new Map();
  #following = null; // one at a time: browsers have few connections to one server
  #timer = 0;
  #shown = false;

  /** @param {function(): Object} limits - The server's. */
  constructor(limits) {
    new Uploads(limits, () => this.refresh());
    document.addEventListener("visibilitychange", () => this.#shown && !document.hidden && this.refresh());
  }

  /** Show it, with the focus where it was left: at the book that was open. */
  async show(from = null) {
    this.#shown = true;
    await this.refresh();
    if (from && this.#books.has(from)) this.#books.get(from).focus();
    else if (from) at("shelf-heading").focus();
  }

  /** Follow nothing while it is not seen. */
  hide() {
    this.#shown = false;
    this.#unfollow();
    clearTimeout(this.#timer);
  }

  /** See what there is. */
  async refresh() {
    clearTimeout(this.#timer);
    try {
      this.#lay((await told("/v1/books")).data);
    } catch (error) {
      trouble(reason(error));
    }
    if (this.#shown) this.#timer = setTimeout(() => this.refresh(), LOOK_AGAIN);
  }

  #lay(found) {
    found.sort((one, other) => other.created_at - one.created_at || one.id.localeCompare(other.id));
    const list = at("books");
    for (const [name, book] of this.#books) {
      if (found.some((each) => each.id === name)) continue;
      book.remove();
      this.#books.delete(name);
    }
    found.forEach((each, place) => {
      if (!this.#books.has(each.id)) this.#books.set(each.id, new ShelvedBook(this));
      const book = this.#books.get(each.id);
      book.tell(each);
      if (list.children[place] !== book.element) list.insertBefore(book.element, list.children[place] ?? null);
    });
    at("shelf-empty").hidden = found.length > 0;
    const read = found.find((each) => each.status === "reading") ?? found.findLast((each) => each.status === "waiting");
    if (read && this.#shown) this.#follow(read.id);
    else this.#unfollow();
  }

  /** The focus of a book that goes is at the next one, or at the heading. */
  gone(name) {
    const element = this.#books.get(name)?.element;
    const near = element?.nextElementSibling ?? element?.previousElementSibling;
    const other = [...this.#books.values()].find((book) => book.element === near);
    if (other) other.focus();
    else at("shelf-heading").focus();
    return this.refresh();
  }

  #unfollow() {
    this.#following?.stop.abort();
    this.#following = null;
  }

  async #follow(name) {
    if (this.#following?.name === name) return;
    this.#unfollow();
    const mine = (this.#following = { name, stop: new AbortController() });
    let last = null;
    try {
      for await (const data of events(bookPath(name, "/events"), { signal: mine.stop.signal })) {
        last = JSON.parse(data);
        if (!last.error?.message) this.#books.get(name)?.tell(last);
      }
    } catch (error) {
      if (wasStopped(error)) return;
    }
    if (this.#following !== mine) return;
    this.#following = null;
    if (last?.status === "ready") announce(`${last.title} is read and can be asked.`);
    if (last?.status === "failed") announce(`${last.title} could not be read: ${last.error}`);
    await this.refresh();
  }
}
