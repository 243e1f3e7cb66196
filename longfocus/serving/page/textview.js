/**
 * The text on the page. It is put in by stretches: at once where it is looked at, the rest when there is time, and the
 * browser lays out only what is near (`content-visibility`). So all of it is there for searching and reading aloud.
 */

import { make } from "./elements.js";
import { last } from "./text.js";

const ABOVE = 0.2; // where what one goes to stands, as a share of the height
const AHEAD = "1500px 0px";
const SETTLING = 6; // looks, until what is above has its true height

const later = window.requestIdleCallback ?? ((work) => setTimeout(() => work({ timeRemaining: () => 4 }), 30));

export class TextView {
  #root;
  #book;
  #stretches = [];
  #filled = new Set();
  #observer;
  #lit = [];
  #goal = null; // where one went, until one scrolls on
  #goalTop = 0;
  #last = 0; // the place that one saw last
  #width = 0;
  #sizes;
  #moves = 0;
  #isClosed = false;

  /**
   * @param {HTMLElement} root - What scrolls.
   * @param {BookText} book - The text.
   * @param {function(number)} moved - Is told the place that stands at the top, as it changes.
   */
  constructor(root, book, moved) {
    this.#root = root;
    this.#book = book;
    this.#observer = new IntersectionObserver((seen) => this.#approach(seen), { root, rootMargin: AHEAD });
    this.#lay();
    let waits = false;
    root.onscroll = () => {
      if (waits) return;
      waits = true;
      requestAnimationFrame(() => {
        waits = false;
        if (this.#isClosed || !root.clientHeight) return; // it has no height while it is not shown
        this.#last = this.place;
        moved(this.#last);
      });
    };
    this.#width = root.clientWidth;
    this.#sizes = new ResizeObserver(() => this.#resized());
    this.#sizes.observe(root);
    this.#fillLater(0);
  }

  /** Let go of the element. */
  close() {
    this.#isClosed = true;
    this.#observer.disconnect();
    this.#sizes.disconnect();
    this.#root.onscroll = null;
    this.#root.replaceChildren();
  }

  /** The place that stands at the top. */
  get place() {
    const root = this.#root;
    if (this.#goal !== null && Math.abs(root.scrollTop - this.#goalTop) < 3) return this.#goal;
    this.#goal = null;
    const line = root.scrollTop + root.clientHeight * ABOVE;
    const stretch = Math.max(last(this.#stretches.length, (each) => this.#stretches[each].offsetTop <= line), 0);
    const paragraphs = this.#stretches[stretch]?.children ?? [];
    const number = Math.max(last(paragraphs.length, (each) => paragraphs[each].offsetTop <= line), 0);
    const paragraph = this.#book.paragraphs[this.#book.stretches[stretch] + number];
    return paragraph ? this.#book.placeOf(paragraph.start) : 0;
  }

  /** Go to a place; it stands in the upper part then. */
  async go(place) {
    const unit = this.#book.unitOf(place);
    const element = this.#elementAt(unit);
    if (!element) return;
    const range = document.createRange();
    const inside = Math.max(unit - this.#book.paragraphs[this.#book.paragraphAt(unit)].start, 0);
    const [node, offset] = nodeAt(element, inside);
    range.setStart(node, offset);
    range.setEnd(node, Math.min(offset + 1, node.length));
    this.#goal = this.#last = place;
    await this.#settle(range);
  }

  /**
   * Light up a stretch of text, and go there.
   *
   * @returns {Promise<HTMLElement?>} Its first part, which can have the focus.
   */
  async light(start, end, label) {
    this.dim();
    const [first, stop] = [this.#book.unitOf(start), this.#book.unitOf(end)];
    const paragraphs = this.#book.paragraphs;
    const marks = [];
    let number = this.#book.paragraphAt(first);
    for (; number < paragraphs.length && paragraphs[number].start < stop; number++) {
      const { start: from, end: to } = paragraphs[number];
      if (to <= first) continue;
      const element = this.#elementOf(number);
      const text = this.#book.text.slice(from, to);
      const [begin, finish] = [Math.max(first - from, 0), Math.min(stop, to) - from];
      const mark = make("mark", { class: "lit" }, text.slice(begin, finish));
      element.replaceChildren(text.slice(0, begin), mark, text.slice(finish));
      this.#lit.push([element, text]);
      marks.push(mark);
    }
    if (!marks.length) return null;
    marks[0].tabIndex = -1;
    if (label) marks[0].setAttribute("aria-description", label);
    this.#goal = this.#last = start;
    await this.#settle(marks[0]);
    return marks[0];
  }

  /** Put out what is lit. */
  dim() {
    for (const [element, text] of this.#lit) element.replaceChildren(text);
    this.#lit = [];
  }

  #lay() {
    const { stretches, paragraphs } = this.#book;
    const style = getComputedStyle(this.#root);
    const line = parseFloat(style.lineHeight) || 28;
    const letters = Math.max(Math.min(this.#root.clientWidth, 720) / (parseFloat(style.fontSize) * 0.47), 20);
    for (let each = 0; each < stretches.length - 1; each++) {
      const [first, next] = [stretches[each], stretches[each + 1]];
      const units = paragraphs[next - 1].end - paragraphs[first].start;
      const height = Math.round((units / letters + (next - first)) * line);
      const stretch = make("div", { class: "stretch" });
      stretch.style.containIntrinsicBlockSize = `auto ${height}px`;
      stretch.style.minHeight = `${height}px`;
      this.#stretches.push(stretch);
    }
    this.#root.replaceChildren(...this.#stretches);
    this.#root.scrollTop = 0;
    this.#stretches.forEach((stretch) => this.#observer.observe(stretch));
  }

  /** Lines break elsewhere, or it is shown again: what one saw last is where it was. */
  #resized() {
    const width = this.#root.clientWidth;
    const isOther = width !== this.#width;
    this.#width = width;
    if (isOther && width) this.go(this.#last);
  }

  #approach(seen) {
    for (const each of seen) {
      if (each.isIntersecting) this.#fill(this.#stretches.indexOf(each.target));
    }
  }

  #fillLater(from) {
    later((time) => {
      let next = from;
      do {
        if (this.#isClosed || next >= this.#stretches.length) return;
        this.#fill(next++);
      } while (time.timeRemaining() > 3);
      this.#fillLater(next);
    });
  }

  #fill(number) {
    if (this.#filled.has(number) || !this.#stretches[number]) return;
    this.#filled.add(number);
    const { stretches, paragraphs, text } = this.#book;
    const made = paragraphs.slice(stretches[number], stretches[number + 1]).map(({ start, end, kind, goesOn }) => {
      const element = make(kind === "heading" ? "h3" : "p", {}, text.slice(start, end));
      if (kind === "lines") element.classList.add("lines");
      if (goesOn) element.classList.add("goes-on");
      return element;
    });
    const stretch = this.#stretches[number];
    stretch.replaceChildren(...made);
    stretch.style.minHeight = "";
    this.#observer.unobserve(stretch);
  }

  #elementOf(number) {
    const stretch = this.#book.stretchOf(number);
    for (const near of [stretch - 1, stretch, stretch + 1]) this.#fill(near);
    return this.#stretches[stretch].children[number - this.#book.stretches[stretch]];
  }

  #elementAt(unit) {
    return this.#book.paragraphs.length ? this.#elementOf(this.#book.paragraphAt(unit)) : null;
  }

  /** Scroll to an element or a range, again while what stands above comes to its true height. */
  async #settle(what) {
    const mine = ++this.#moves;
    const root = this.#root;
    for (let look = 0; look < SETTLING && mine === this.#moves && !this.#isClosed; look++) {
      const by = what.getBoundingClientRect().top - root.getBoundingClientRect().top - root.clientHeight * ABOVE;
      if (Math.abs(by) >= 1) root.scrollTop += by;
      this.#goalTop = root.scrollTop;
      await new Promise((settled) => requestAnimationFrame(settled));
    }
  }
}

/** The text node in an element that holds a unit, and where in it. */
function nodeAt(element, unit) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let node = walker.nextNode();
  let before = 0;
  while (node.length + before <= unit) {
    const next = walker.nextNode();
    if (!next) return [node, node.length];
    [before, node] = [before + node.length, next];
  }
  return [node, unit - before];
}
