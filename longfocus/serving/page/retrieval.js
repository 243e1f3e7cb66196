/**
 * Retrieval by words, to compare memory with: the passages of a book that share most words with a question, the rare
 * ones most (BM25: Robertson et al., 1994), as they are put into a prompt that has no book behind it.
 */

const LONGEST = 900; // units of a passage: three of them, some 700 tokens, fit the smallest window in use
const [K1, B] = [1.5, 0.75];

/** Passages of a text that can be searched. */
export class Passages {
  #passages = [];
  #counts = []; // of each passage: how often each word stands in it
  #lengths = [];
  #in = new Map(); // of each word: in how many passages it stands

  /** @param {BookText} book - The text. */
  constructor(book) {
    this.#passages = cut(book);
    for (const { start, end } of this.#passages) {
      const words = wordsOf(book.text.slice(start, end));
      const counts = new Map();
      for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
      for (const word of counts.keys()) this.#in.set(word, (this.#in.get(word) ?? 0) + 1);
      this.#counts.push(counts);
      this.#lengths.push(words.length);
    }
    this.#passages = this.#passages.map(({ start, end }) => ({
      text: book.text.slice(start, end),
      start: book.placeOf(start),
      end: book.placeOf(end),
    }));
  }

  /** The passages that fit a question best, best first: each with its text, place and score. */
  best(question, most) {
    const all = this.#passages.length;
    const usual = this.#lengths.reduce((sum, each) => sum + each, 0) / Math.max(all, 1);
    const asked = [...new Set(wordsOf(question))].filter((word) => this.#in.has(word));
    const scored = this.#counts.map((counts, number) => {
      let score = 0;
      for (const word of asked) {
        const often = counts.get(word) ?? 0;
        const rare = Math.log(1 + (all - this.#in.get(word) + 0.5) / (this.#in.get(word) + 0.5));
        score += (rare * often) / (often + K1 * (1 - B + (B * this.#lengths[number]) / usual));
      }
      return { ...this.#passages[number], score };
    });
    return scored.filter(({ score }) => score > 0).sort((one, other) => other.score - one.score).slice(0, most);
  }
}

/** A question with passages before it, in the book's order. */
export function withPassages(question, passages) {
  const texts = [...passages].sort((one, other) => one.start - other.start).map(({ text }) => text);
  return texts.length ? ["Passages of a book:", ...texts, question].join("\n\n") : question;
}

/** Neighbouring paragraphs together, up to the longest that may be; longer ones cut behind a sentence. */
function cut({ paragraphs, text }) {
  const passages = [];
  for (const paragraph of paragraphs) {
    let { start } = paragraph;
    const held = passages.at(-1);
    if (held && paragraph.end - held.start <= LONGEST) {
      held.end = paragraph.end;
      continue;
    }
    while (paragraph.end - start > LONGEST) {
      const piece = text.slice(start, start + LONGEST);
      const sentence = Math.max(...[". ", "! ", "? ", ".\n"].map((end) => piece.lastIndexOf(end))) + 1;
      const size = sentence > LONGEST / 2 ? sentence : Math.max(piece.lastIndexOf(" "), LONGEST / 2);
      passages.push({ start, end: start + size });
      start += size;
    }
    passages.push({ start, end: paragraph.end });
  }
  return passages;
}

const wordsOf = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
