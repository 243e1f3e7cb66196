/** One answer: its text as it is written, and the passages that it rests on, each of which can be gone to. */

import { ask, reason, wasStopped } from "./api.js";
import { make, say } from "./elements.js";
import { percent, shortened } from "./words.js";

const SNIPPET = 140;

export class Answer {
  #text = make("p", { class: "answer-text" });
  #state = make("p", { class: "quiet" }, "Waits for its turn …");
  #passages = make("div", { class: "passages" });
  #cite;

  /**
   * @param {function(Object, HTMLElement, Answer)} cite - Is called with a passage that is to be shown, the button that
   *   was pressed, and this.
   * @param {string} [heading] - What it rests on.
   */
  constructor(cite, heading) {
    this.#cite = cite;
    this.attention = [];
    this.element = make("div", { class: "answer" }, this.#text, this.#state, this.#passages);
    if (heading) this.element.prepend(make("h3", {}, heading));
  }

  /** The answer as far as it was written. */
  get text() {
    return this.#text.textContent;
  }

  /** How it stands. */
  get state() {
    return this.#state.textContent;
  }

  /**
   * Have it written.
   *
   * @param {Object} body - The request.
   * @param {AbortSignal} signal - Calls it off.
   * @returns {Promise<Object?>} Its last choice; null where it came to nothing, which it says itself.
   */
  async write(body, signal) {
    try {
      for await (const { text, end } of ask(body, signal)) {
        if (end) return this.#end(end);
        if (!this.text) say(this.#state, "Writing …");
        this.#text.append(text);
      }
    } catch (error) {
      say(this.#state, wasStopped(error) ? "Stopped." : `No answer: ${reason(error)}`);
      if (!wasStopped(error)) this.#state.className = "error";
    }
    return null;
  }

  /** Show passages under a heading; `share` where their scores are shares of attention. */
  showPassages(heading, passages, share) {
    if (!passages.length) return;
    const items = passages.map((passage, number) => {
      const { chapter, page, score, text } = passage;
      const place = [chapter, page && `page ${page}`, share && percent(score)].filter(Boolean).join(" · ");
      const parts = [make("span", { class: "number" }, String(number + 1)), make("span", { class: "place" }, place)];
      const snippet = make("span", { class: "snippet" }, shortened(text, SNIPPET));
      const button = make("button", { type: "button", class: "citation" }, ...parts, " ", snippet);
      button.addEventListener("click", () => this.#cite(passage, button, this));
      return make("li", {}, button);
    });
    this.#passages.append(make("h4", {}, heading), make("ol", { class: "plain", "aria-label": heading }, ...items));
  }

  #end(end) {
    const { timings, citations = [], finish_reason: finish, stopped } = end;
    const words = [`${timings.first_token.toFixed(1)} s to the first word, ${timings.total.toFixed(1)} s in all`];
    if (stopped === "time") words.push("broken off, since its time was up");
    else if (finish === "length") words.push("cut off at its longest");
    if (!this.text) words.unshift("The model wrote nothing");
    say(this.#state, words.join(" · "));
    this.attention = end.attention ?? [];
    this.showPassages("Rests on", citations, true);
    return end;
  }
}
