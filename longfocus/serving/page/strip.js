/** A strip as long as the whole book: where the reader is, where attention lies, and a way to go to either. */

import { make } from "./elements.js";
import { percent } from "./words.js";

/** Into how many stretches of equal length a book is cut. */
export const PARTS = 160;

const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };

export class Strip {
  #root;
  #book;
  #go;
  #bars = [];
  #here = make("span", { class: "here" });
  #attention = [];
  #part = 0;

  /**
   * @param {HTMLElement} root - The strip, a slider.
   * @param {BookText} book - The text.
   * @param {function(number)} go - Goes to a place.
   */
  constructor(root, book, go) {
    this.#root = root;
    this.#book = book;
    this.#go = go;
    for (let part = 0; part < PARTS; part++) this.#bars.push(make("span", { class: "bar-of-attention" }));
    const ticks = book.chapters.map(({ start }) => {
      const tick = make("span", { class: "tick" });
      tick.style.insetInlineStart = `${(100 * start) / Math.max(book.length, 1)}%`;
      return tick;
    });
    root.replaceChildren(make("div", { class: "bars", "aria-hidden": "true" }, ...this.#bars), ...ticks, this.#here);
    root.setAttribute("aria-valuemax", PARTS - 1);
    root.onclick = (event) => this.#follow(event);
    root.onpointermove = (event) => this.#hint(event);
    root.onkeydown = (event) => this.#key(event);
    this.tellPlace(0);
  }

  /** Show where the reader is. */
  tellPlace(place) {
    const share = place / Math.max(this.#book.length, 1);
    this.#part = this.#partOf(place);
    this.#here.style.insetInlineStart = `${100 * share}%`;
    this.#root.setAttribute("aria-valuenow", this.#part);
    this.#root.setAttribute("aria-valuetext", this.#words(this.#part, share));
  }

  /**
   * Show where attention lies; with nothing, that there is none to show.
   *
   * @param {number[]} attention - The share of each stretch.
   */
  tellAttention(attention) {
    this.#attention = attention;
    const most = Math.max(...attention, 1e-9);
    this.#bars.forEach((bar, part) => {
      const share = attention[part] ?? 0;
      bar.style.height = share ? `${Math.max(100 * Math.sqrt(share / most), 4)}%` : "0"; // small shares are seen too
    });
    this.#root.classList.toggle("told", attention.length > 0);
  }

  #partOf(place) {
    return Math.min(Math.floor((place * PARTS) / Math.max(this.#book.length, 1)), PARTS - 1);
  }

  #startOf(part) {
    return Math.ceil((part * this.#book.length) / PARTS);
  }

  #words(part, share) {
    const words = [percent(share)];
    const [section] = this.#book.sectionsAt(Math.min(Math.ceil(share * this.#book.length), this.#book.length - 1));
    if (section) words.push(section.label);
    if (this.#attention[part]) words.push(`${percent(this.#attention[part])} of the attention`);
    return words.join(", ");
  }

  #shareAt(event) {
    const { left, width } = this.#root.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - left) / Math.max(width, 1), 0), 0.9999);
  }

  #follow(event) {
    this.#go(Math.floor(this.#shareAt(event) * this.#book.length));
  }

  #hint(event) {
    const share = this.#shareAt(event);
    this.#root.title = this.#words(Math.floor(share * PARTS), share);
  }

  #key(event) {
    const step = STEPS[event.key];
    let part = null;
    if (step) part = this.#part + step;
    else if (event.key === "Home") part = 0;
    else if (event.key === "End") part = PARTS - 1;
    if (part === null || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#go(this.#startOf(Math.min(Math.max(part, 0), PARTS - 1)));
  }
}
