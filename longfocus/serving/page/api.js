/** Requests to the server that this page came from. */

import { at } from "./elements.js";

const KEPT = "longfocus-key";
const NO_KEY = 401;

/** The server does not serve a request; the message is its own. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = body?.error?.code ?? null;
  }
}

/** Whether an error only means that a request was called off here. */
export const wasStopped = (error) => error?.name === "AbortError";

/** What to tell of an error. */
export function reason(error) {
  if (error instanceof Refused) return error.message;
  if (error instanceof TypeError) return "The server cannot be reached, or the connection broke.";
  return String(error?.message ?? error);
}

function headers(more = {}) {
  const key = sessionStorage.getItem(KEPT);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

let asking = null;

/** Ask for the key, once for all requests that want it. */
function askForKey() {
  const tried = sessionStorage.getItem(KEPT) !== null;
  asking ??= new Promise((settled) => {
    const dialog = at("key-dialog");
    at("key-reason").textContent = tried
      ? "The server does not take this key. Try another."
      : "This server wants a key. It is kept in this tab until that is closed.";
    at("key").value = "";
    dialog.oncancel = (event) => event.preventDefault(); // there is nothing to see without it
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEPT, at("key").value.trim());
      asking = null;
      dialog.close();
      settled();
    };
    dialog.onclose = () => {
      if (asking) dialog.showModal(); // browsers close it all the same
    };
    dialog.showModal();
  });
  return asking;
}

async function refusal(response) {
  return new Refused(response.status, await response.json().catch(() => null));
}

/**
 * Send a request; resolves to a response that is well.
 *
 * @throws {Refused} The server does not serve it.
 */
export async function send(path, options = {}) {
  for (;;) {
    const sent = sessionStorage.getItem(KEPT);
    const response = await fetch(path, { ...options, headers: headers(options.headers) });
    if (response.status === NO_KEY) {
      if (sessionStorage.getItem(KEPT) === sent) await askForKey(); // unless another request has a key by now
      continue;
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/** Send a request; resolves to the object that comes back. */
export const told = async (path, options) => (await send(path, options)).json();

/** Where a book is. */
export const bookPath = (name, part = "") => `/v1/books/${encodeURIComponent(name)}${part}`;

/** The text of a book. Its first character stays even where it is a byte order mark, since places count from it. */
export async function textOf(name, signal) {
  const response = await send(bookPath(name, "/text"), { signal });
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await response.arrayBuffer());
}

/** What the server sends, event by event. */
export async function* events(path, options) {
  const response = await send(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (held + value).split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter((line) => line.startsWith("data: "));
        if (data.length) yield data.map((line) => line.slice(6)).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Ask a question; yields `{ text }` as it is written and last `{ end }`, the last choice with its fields.
 *
 * @throws {Refused} It comes to nothing.
 */
export async function* ask(body, signal) {
  const request = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  };
  let end = null;
  for await (const data of events("/v1/chat/completions", request)) {
    if (data === "[DONE]") continue; // the stream ends by itself
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(0, chunk);
    const [choice] = chunk.choices;
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) end = choice;
  }
  if (!end) throw new Refused(0, { error: { message: "The connection broke before the answer was whole." } });
  yield { end };
}

/**
 * Upload a document; resolves to the book that it becomes. By XMLHttpRequest, which alone tells how much was sent.
 *
 * @param {File} file - The document.
 * @param {function(number)} onSent - Is told the share that was sent.
 * @param {AbortSignal} signal - Calls it off.
 */
export function upload(file, onSent, signal) {
  return new Promise((settled, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/books");
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onSent(event.loaded / event.total);
    };
    request.onload = () => {
      if (request.status === NO_KEY) settled(askForKey().then(() => upload(file, onSent, signal)));
      else if (request.status === 201) settled(request.response);
      else failed(new Refused(request.status, request.response));
    };
    request.onerror = () => failed(new TypeError("the connection broke"));
    request.onabort = () => failed(new DOMException("called off", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}
