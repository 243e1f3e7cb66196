/** Searching the text: words as they stand there, over line breaks, with straight or curly quotes. */

import { announce, at, say } from "./elements.js";
import { last } from "./text.js";
import { count, shortened } from "./words.js";

const MOST = 10_000;
const SAME = [
  ["'", "['’‘]"],
  ['"', '["“”]'],
  ["-", "[-‐‑–—]"],
];

/** Where words stand in a text, as pairs of units; the first 10,000 places. */
export function placesOf(words, text) {
  const parts = words.trim().split(/\s+/).filter(Boolean);
  if (!parts.length) return [];
  let pattern = parts.map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("\\s+");
  for (const [plain, any] of SAME) pattern = pattern.replaceAll(plain, any);
  const found = [];
  for (const match of text.matchAll(new RegExp(pattern, "giu"))) {
    found.push([match.index, match.index + match[0].length]);
    if (found.length === MOST) break;
  }
  return found;
}

export class Search {
  #book;
  #view;
  #words = "";
  #places = [];
  #number = -1;

  /**
   * @param {BookText} book - The text.
   * @param {TextView} view - Where it is shown.
   */
  constructor(book, view) {
    this.#book = book;
    this.#view = view;
    const field = at("find");
    let timer = 0;
    field.value = "";
    say(at("found"), "");
    field.oninput = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#look(), 200);
    };
    field.onkeydown = (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      this.#step(event.shiftKey ? -1 : 1);
    };
    at("search").onsubmit = (event) => {
      event.preventDefault();
      this.#step(1);
    };
    at("previous").onclick = () => this.#step(-1);
  }

  #look() {
    const words = at("find").value;
    if (words === this.#words) return;
    this.#words = words;
    this.#places = placesOf(words, this.#book.text);
    this.#number = -1;
    this.#tell();
  }

  #tell() {
    const many = this.#places.length === MOST ? `${count(MOST)} or more` : count(this.#places.length);
    const none = this.#words.trim() ? "not found" : "";
    const where = this.#number < 0 ? `${many} found` : `${count(this.#number + 1)} of ${many}`;
    say(at("found"), this.#places.length ? where : none);
  }

  async #step(by) {
    this.#look();
    const places = this.#places;
    if (!places.length) return;
    if (this.#number < 0) {
      const here = this.#book.unitOf(this.#view.place);
      const before = last(places.length, (each) => places[each][0] < here);
      this.#number = by > 0 ? (before + 1) % places.length : Math.max(before, 0);
    } else {
      this.#number = (this.#number + by + places.length) % places.length;
    }
    this.#tell();
    const [start, end] = places[this.#number].map((unit) => this.#book.placeOf(unit));
    await this.#view.light(start, end);
    const [section] = this.#book.sectionsAt(start);
    const around = shortened(this.#book.between(Math.max(start - 60, 0), end + 60), 160);
    announce(`${at("found").textContent}${section ? `, ${section.label}` : ""}: ${around}`);
  }
}
