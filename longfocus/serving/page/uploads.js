/** Documents on their way to the server: chosen or dropped, sent one after the other, each with its progress. */

import { reason, upload, wasStopped } from "./api.js";
import { announce, at, make, say } from "./elements.js";
import { percent, size } from "./words.js";

export class Uploads {
  #limits;
  #arrived;
  #before = Promise.resolve();

  /**
   * @param {function(): Object} limits - The server's.
   * @param {function()} arrived - Called when a document has become a book.
   */
  constructor(limits, arrived) {
    this.#limits = limits;
    this.#arrived = arrived;
    const chosen = at("file");
    chosen.addEventListener("change", () => {
      this.#take(chosen.files);
      chosen.value = ""; // the same file may be chosen again
    });
    const drop = at("drop");
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files") && !at("shelf").hidden;
    addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault(); // a file dropped beside it must not replace the page
      drop.classList.toggle("over", holdsFiles(event));
    });
    addEventListener("dragleave", (event) => !event.relatedTarget && drop.classList.remove("over"));
    addEventListener("drop", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.remove("over");
      if (holdsFiles(event)) this.#take(event.dataTransfer.files);
    });
  }

  #take(files) {
    for (const file of files) {
      const line = new Line(file);
      this.#before = this.#before.then(() => this.#send(file, line));
    }
  }

  async #send(file, line) {
    const { upload_bytes: most } = this.#limits();
    if (line.isOff) return;
    if (most && file.size > most) {
      line.fail(`it has ${size(file.size)}, and the server takes ${size(most)} at most`);
      return;
    }
    try {
      const book = await upload(file, (share) => line.sent(share), line.signal);
      line.remove();
      announce(`${book.title} is on the shelf and waits to be read.`);
      await this.#arrived();
    } catch (error) {
      if (!wasStopped(error)) line.fail(reason(error));
    }
  }
}

class Line {
  #file;
  #stop = new AbortController();
  #bar = make("progress", { max: "1" });
  #words = make("p", { class: "quiet" }, "waits");
  #button;

  constructor(file) {
    this.#file = file;
    this.#bar.setAttribute("aria-label", `Uploading ${file.name}`);
    this.#button = make("button", { type: "button", on: { click: () => this.#off() } }, "Cancel");
    this.#button.setAttribute("aria-label", `Cancel: ${file.name}`);
    this.element = make("li", { class: "book" }, make("h2", {}, file.name), this.#words, this.#bar, this.#button);
    at("uploads").append(this.element);
  }

  get isOff() {
    return this.#stop.signal.aborted;
  }

  get signal() {
    return this.#stop.signal;
  }

  sent(share) {
    if (share < 1) this.#bar.value = share;
    else this.#bar.removeAttribute("value");
    say(this.#words, share < 1 ? `${percent(share)} of ${size(this.#file.size)} sent` : "sent; the text is taken out of it");
  }

  fail(why) {
    this.#bar.remove();
    this.#words.className = "error";
    say(this.#words, `Not uploaded: ${why}`);
    say(this.#button, "Close");
    this.#button.setAttribute("aria-label", `Close: ${this.#file.name}`);
    announce(`${this.#file.name} was not uploaded: ${why}`);
  }

  remove() {
    const hadFocus = this.element.contains(document.activeElement);
    this.element.remove();
    if (hadFocus) at("shelf-heading").focus();
  }

  #off() {
    this.#stop.abort();
    this.remove();
  }
}
