/** One book on the shelf: what it is called, how far it is read, what can be done with it. */

import { bookPath, reason, told } from "./api.js";
import { announce, at, make, say, trouble } from "./elements.js";
import { count, duration, percent, size } from "./words.js";

const STATES = {
  waiting: "waits to be read",
  reading: "is being read",
  ready: "read",
  stopped: "not read to its end",
  failed: "could not be read",
  unusable: "cannot be used",
};

export class ShelvedBook {
  #book = null;
  #title = make("h2");
  #link = make("a");
  #facts = make("p", { class: "quiet facts" });
  #error = make("p", { class: "error", hidden: true });
  #bar = make("progress", { max: "1" });
  #rate = make("p", { class: "quiet rate" });
  #actions;
  #shelf;

  /** @param {Shelf} shelf - Is told when something has changed. */
  constructor(shelf) {
    this.#shelf = shelf;
    const action = (label, does) => make("button", { type: "button", on: { click: () => this.#try(does) } }, label);
    this.#actions = {
      cancel: action("Stop reading", () => this.#post("cancel")),
      read: action("Go on reading", () => this.#post("read")),
      delete: action("Delete", () => this.#delete()),
    };
    const actions = make("div", { class: "bar" }, ...Object.values(this.#actions));
    const parts = [this.#title, this.#facts, this.#error, this.#bar, this.#rate, actions];
    this.element = make("li", { class: "book" }, ...parts);
  }

  /** Show a book as it is now. */
  tell(book) {
    this.#book = book;
    const { status, title } = book;
    const isRead = status === "ready";
    this.element.dataset.status = status;
    if (isRead !== this.#link.isConnected || !this.#title.textContent) {
      this.#title.replaceChildren(isRead ? this.#link : "");
    }
    if (isRead) this.#link.setAttribute("href", `#/book/${encodeURIComponent(book.id)}`);
    say(isRead ? this.#link : this.#title, title || book.id);
    const facts = [STATES[status] ?? status];
    if (book.tokens) facts.push(`${count(book.tokens)} tokens`);
    if (book.bytes) facts.push(`${size(book.bytes)} on the disk`);
    if (![title, book.id].some((name) => book.filename.startsWith(name))) facts.push(book.filename);
    say(this.#facts, facts.join(" · "));
    this.#error.hidden = !book.error;
    say(this.#error, book.error ?? "");
    this.#tellProgress(book);
    this.#offer(book);
  }

  /** Put the focus on it. */
  focus() {
    const place = [this.#link, ...Object.values(this.#actions)].find((each) => each.isConnected && !each.hidden);
    place?.focus();
  }

  /** Take it off the list. */
  remove() {
    this.element.remove();
  }

  #tellProgress({ status, title, tokens, tokens_read: read, tokens_per_second: speed, seconds_left: left }) {
    const goesOn = status === "reading" || status === "waiting";
    this.#bar.hidden = this.#rate.hidden = !goesOn;
    if (!goesOn) return;
    this.#bar.setAttribute("aria-label", `Reading ${title}`);
    if (status === "reading" && tokens) this.#bar.value = read / tokens;
    else this.#bar.removeAttribute("value");
    const words = [];
    if (tokens && status === "reading") words.push(`${percent(read / tokens)}, ${count(read)} of ${count(tokens)} tokens`);
    if (speed) words.push(`${count(speed)} tokens/s`);
    if (left !== null) words.push(left > 0 ? `${duration(left)} left` : "nearly done");
    say(this.#rate, words.join(" · "));
  }

  #offer({ status, title }) {
    const offered = {
      cancel: status === "reading" || status === "waiting",
      read: status === "stopped" || status === "failed",
      delete: true,
    };
    for (const [name, button] of Object.entries(this.#actions)) {
      const hadFocus = document.activeElement === button;
      button.hidden = !offered[name];
      button.setAttribute("aria-label", `${button.textContent}: ${title}`);
      if (hadFocus && button.hidden) this.focus();
    }
  }

  async #try(does) {
    try {
      await does();
    } catch (error) {
      trouble(reason(error));
    }
  }

  async #post(what) {
    this.tell(await told(bookPath(this.#book.id, `/${what}`), { method: "POST" }));
    announce(`${this.#book.title} ${STATES[this.#book.status]}.`);
    await this.#shelf.refresh();
  }

  async #delete() {
    const { id, title } = this.#book;
    if (!(await confirmed(`“${title}” and all that was read of it is deleted from the disk. It cannot be brought back.`)))
      return;
    await told(bookPath(id), { method: "DELETE" });
    announce(`${title} is deleted.`);
    await this.#shelf.gone(id);
  }
}

/** Whether the user agrees to what is to be deleted. */
function confirmed(text) {
  const dialog = at("confirm-dialog");
  at("confirm-text").textContent = text;
  return new Promise((settled) => {
    let agreed = false;
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      agreed = true;
      dialog.close();
    };
    at("confirm-no").onclick = () => dialog.close();
    dialog.onclose = () => settled(agreed);
    dialog.showModal();
  });
}
