/** The page: the shelf at `#/`, a book at `#/book/NAME`. */

import { reason, told } from "./api.js";
import { at, noTrouble, say, trouble } from "./elements.js";
import { Reader } from "./reader.js";
import { Shelf } from "./shelf.js";

let limits = {};
let reader = null;
const shelf = new Shelf(() => limits);

/** Show what the address names. */
async function show() {
  const [, kind, named] = /^#\/(book)\/(.+)$/.exec(location.hash) ?? [];
  noTrouble();
  const from = reader && !at("reader").hidden ? reader.name : null;
  at("shelf").hidden = Boolean(kind);
  at("reader").hidden = !kind;
  document.body.classList.toggle("reading", Boolean(kind));
  if (!kind) {
    document.title = "Longfocus";
    reader?.rest();
    await shelf.show(from);
    return;
  }
  shelf.hide();
  const name = decodeURIComponent(named);
  if (reader?.name !== name) {
    reader?.close();
    reader = new Reader(name);
  }
  try {
    await reader.show();
  } catch (error) {
    if (reader.name !== name) return; // another one is shown by now
    reader.close();
    reader = null;
    location.replace("#/");
    await new Promise((settled) => addEventListener("hashchange", settled, { once: true }));
    trouble(reason(error));
  }
}

at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});
addEventListener("hashchange", show);
await show();
try {
  limits = await told("/v1/limits");
  say(at("model"), limits.model);
  at("file").accept = [...limits.suffixes, ".gz"].join(",");
} catch (error) {
  trouble(reason(error));
}
