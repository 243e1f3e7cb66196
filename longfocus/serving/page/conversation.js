/** The conversation about a book: questions, answers as they are written, and three answers side by side. */

import { Answer } from "./answer.js";
import { announce, at, make } from "./elements.js";
import { Passages, withPassages } from "./retrieval.js";
import { PARTS } from "./strip.js";
import { shortened } from "./words.js";

const CITED = 3;
const RETRIEVED = 3;

export class Conversation {
  #name;
  #book;
  #cite;
  #attend;
  #messages = [];
  #passages = null;
  #stop = null;

  /**
   * @param {string} name - The book's.
   * @param {BookText} book - Its text.
   * @param {function(Object, HTMLElement)} cite - Shows a passage.
   * @param {function(number[])} attend - Shows where attention lies.
   */
  constructor(name, book, cite, attend) {
    this.#name = name;
    this.#book = book;
    this.#cite = (passage, button, answer) => {
      if (answer.attention.length) attend(answer.attention);
      cite(passage, button);
    };
    this.#attend = attend;
    at("ask").onsubmit = (event) => {
      event.preventDefault();
      this.#ask();
    };
    at("question").onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#ask();
    };
    at("stop").onclick = () => this.#stop?.abort();
    at("anew").onclick = () => this.#anew();
    at("compare").onchange = () => this.#arrange();
    this.#anew();
    this.#arrange();
  }

  /** Call off what is being answered. */
  close() {
    this.#stop?.abort();
    this.#stop = null;
    at("stop").hidden = true;
  }

  #arrange() {
    at("compare-hint").hidden = !at("compare").checked;
    at("reader").classList.toggle("comparing", at("compare").checked);
  }

  #anew() {
    this.close();
    this.#messages = [];
    at("turns").replaceChildren();
    this.#attend([]);
    at("question").focus();
  }

  async #ask() {
    const field = at("question");
    const question = field.value.trim();
    if (!question || this.#stop) return;
    field.value = "";
    const mine = (this.#stop = new AbortController());
    at("stop").hidden = false;
    const turn = make("li", { class: "turn" }, make("p", { class: "asked" }, question));
    at("turns").append(turn);
    announce("The question was sent.");
    const isGood = await (at("compare").checked ? this.#compare : this.#answer).call(this, question, turn, mine.signal);
    if (this.#stop !== mine) return;
    this.#stop = null;
    if (!isGood && !mine.signal.aborted && !field.value) field.value = question;
    if (document.activeElement === at("stop")) field.focus();
    at("stop").hidden = true;
  }

  async #answer(question, turn, signal) {
    const answer = new Answer(this.#cite);
    turn.append(answer.element);
    const letGo = keepAtEnd(at("turns"));
    const asked = { role: "user", content: question };
    const end = await answer.write(this.#body([...this.#messages, asked]), signal);
    letGo();
    if (answer.text && turn.isConnected) this.#messages.push(asked, { role: "assistant", content: answer.text });
    if (!end) {
      announce(answer.state);
      return false;
    }
    if (turn.isConnected) this.#attend(answer.attention);
    const many = end.citations.length;
    announce(`Answer: ${answer.text} It rests on ${many} ${many === 1 ? "passage" : "passages"}.`);
    return true;
  }

  async #compare(question, turn, signal) {
    const asked = [{ role: "user", content: question }];
    this.#passages ??= new Passages(this.#book);
    const found = this.#passages.best(question, RETRIEVED).map((passage) => ({ ...passage, ...this.#place(passage) }));
    const retrieved = { model: "default", messages: [{ role: "user", content: withPassages(question, found) }] };
    const ways = [
      ["Memory", this.#body(asked)],
      ["Last window only", { model: this.#model, messages: asked, uses: "window", citations: 0 }],
      ["Retrieval", retrieved],
    ];
    const answers = ways.map(([heading]) => new Answer(this.#cite, heading));
    turn.classList.add("compared");
    turn.append(make("div", { class: "columns" }, ...answers.map(({ element }) => element)));
    turn.scrollIntoView({ block: "start" });
    answers[2].showPassages(found.length ? "Was given" : "", found, false);
    const ends = await Promise.all(ways.map(([, body], way) => answers[way].write(body, signal)));
    if (ends[0] && turn.isConnected) this.#attend(answers[0].attention);
    announce(ways.map(([heading], way) => `${heading}: ${shortened(answers[way].text, 200) || "no answer"}`).join(". "));
    return ends.some(Boolean);
  }

  get #model() {
    return `default@${this.#name}`;
  }

  #body(messages) {
    return { model: this.#model, messages, citations: CITED, attention: PARTS };
  }

  #place({ start }) {
    return Object.fromEntries(this.#book.sectionsAt(start).map(({ kind, label }) => [kind, label]));
  }
}

/** Keep the end of a list in sight while it grows, unless its user scrolls up; returns what ends that. */
function keepAtEnd(list) {
  let isAtEnd = true;
  const follow = () => {
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  };
  const look = () => (isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60);
  const watch = new MutationObserver(follow);
  list.addEventListener("scroll", look);
  watch.observe(list, { childList: true, subtree: true, characterData: true });
  follow();
  return () => {
    follow();
    watch.disconnect();
    list.removeEventListener("scroll", look);
  };
}
