/**
 * The text of a book, cut into paragraphs and those into stretches, and its places.
 *
 * The server counts characters (code points), JavaScript counts units of UTF-16. Here `place` is the server's number,
 * `unit` is JavaScript's.
 */

const BLOCK = 4096; // units between two entries of the table that turns one into the other
const LONGEST = 4000; // units of a paragraph
const STRETCH = 6000; // least units of a stretch
const HEADING = 200; // most units of one

/** @typedef {{start: number, end: number, kind: "prose"|"lines"|"heading", goesOn: boolean}} Paragraph - In units. */

export class BookText {
  #pairs = null; // how many pairs of units end before each block; null where there are none at all

  /**
   * @param {string} text - The text.
   * @param {Object[]} sections - Chapters and pages, by places.
   */
  constructor(text, sections) {
    this.text = text;
    if (/[\ud800-\udbff]/.test(text)) this.#count();
    this.length = this.placeOf(text.length);
    this.chapters = sections.filter((each) => each.kind === "chapter");
    this.pages = sections.filter((each) => each.kind === "page");
    /** @type {Paragraph[]} */
    this.paragraphs = [...this.#cut()];
    /** Numbers of the first paragraph of each stretch, and behind them that of all. */
    this.stretches = this.#gather();
  }

  /** The server's number of a unit. */
  placeOf(unit) {
    if (!this.#pairs) return unit;
    const block = Math.floor(unit / BLOCK);
    let pairs = this.#pairs[block];
    for (let each = block * BLOCK; each < unit; each++) pairs += isSecond(this.text.charCodeAt(each));
    return unit - pairs;
  }

  /** The unit at which a character begins that the server counts. */
  unitOf(place) {
    if (!this.#pairs) return Math.min(place, this.text.length);
    const block = last(this.#pairs.length, (each) => each * BLOCK - this.#pairs[each] <= place);
    let unit = block * BLOCK;
    let at = unit - this.#pairs[block];
    if (isSecond(this.text.charCodeAt(unit))) unit++; // its character is counted with the units before
    for (; at < place && unit < this.text.length; at++) unit += this.text.codePointAt(unit) > 0xffff ? 2 : 1;
    return unit;
  }

  /** What stands between two places. */
  between(start, end) {
    return this.text.slice(this.unitOf(start), this.unitOf(end));
  }

  /** The chapter at a place, and the page where there are any. */
  sectionsAt(place) {
    return [this.chapters, this.pages]
      .map((all) => all[last(all.length, (each) => all[each].start <= place)])
      .filter((each) => each && place < each.end);
  }

  /** The number of the last paragraph that begins at a unit or before it. */
  paragraphAt(unit) {
    return Math.max(last(this.paragraphs.length, (each) => this.paragraphs[each].start <= unit), 0);
  }

  /** The number of the stretch that a paragraph stands in. */
  stretchOf(paragraph) {
    return last(this.stretches.length - 1, (each) => this.stretches[each] <= paragraph);
  }

  #count() {
    const { text } = this;
    this.#pairs = new Uint32Array(Math.floor(text.length / BLOCK) + 1);
    let pairs = 0;
    for (let unit = 0; unit < text.length; unit++) {
      if (unit % BLOCK === 0) this.#pairs[unit / BLOCK] = pairs;
      pairs += isSecond(text.charCodeAt(unit));
    }
    if (text.length % BLOCK === 0) this.#pairs[text.length / BLOCK] = pairs;
  }

  *#cut() {
    const { text } = this;
    const headings = new Set(this.chapters.map((each) => this.#skip(this.unitOf(each.start))));
    const gap = /\n[^\S\n]*\n\s*/g;
    let start = this.#skip(0);
    while (start < text.length) {
      gap.lastIndex = start;
      const found = gap.exec(text);
      let end = found ? found.index : text.length;
      const next = found ? gap.lastIndex : end;
      while (end > start && /\s/.test(text[end - 1])) end--;
      if (headings.has(start) && end - start <= HEADING) yield { start, end, kind: "heading", goesOn: false };
      else yield* this.#pieces(start, end);
      start = next;
    }
  }

  /** A paragraph, or a very long one in pieces. */
  *#pieces(start, end) {
    const { text } = this;
    for (let goesOn = false; start < end; goesOn = true) {
      let stop = end;
      if (end - start > LONGEST) {
        const most = start + LONGEST;
        const cut = [text.lastIndexOf("\n", most), text.lastIndexOf(" ", most)].find((each) => each > start + LONGEST / 2);
        stop = cut ?? (isSecond(text.charCodeAt(most)) ? most + 1 : most);
      }
      yield { start, end: stop, kind: isOfLines(text.slice(start, stop)) ? "lines" : "prose", goesOn };
      start = /\s/.test(text[stop] ?? "") ? stop + 1 : stop;
    }
  }

  #skip(unit) {
    while (unit < this.text.length && /\s/.test(this.text[unit])) unit++;
    return unit;
  }

  #gather() {
    const firsts = [];
    let begun = -Infinity;
    this.paragraphs.forEach((paragraph, number) => {
      if (paragraph.start - begun < STRETCH) return;
      firsts.push(number);
      begun = paragraph.start;
    });
    return [...firsts, this.paragraphs.length];
  }
}

/** Whether line breaks stand where they are meant to, as in a poem or a list, rather than where a page was full. */
function isOfLines(text) {
  const lines = text.split("\n").map((line) => line.trimEnd());
  if (lines.length < 2) return false;
  const width = Math.max(...lines.map((line) => line.length));
  if (width < 50) return true;
  const roomy = lines.slice(1).filter((line, before) => {
    return lines[before].length + 1 + line.trimStart().split(/\s/, 1)[0].length <= width;
  });
  return roomy.length >= 0.6 * (lines.length - 1);
}

/** Whether a unit is the second of a pair. */
const isSecond = (unit) => unit >= 0xdc00 && unit <= 0xdfff;

/** The last of so many numbers from 0 for which something is true that is true up to some number; -1 for none. */
export function last(count, isTrue) {
  let [low, high] = [-1, count];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (isTrue(middle)) low = middle;
    else high = middle;
  }
  return low;
}
