/** Making elements. All text goes in as text: nothing that a book or a model says is ever read as HTML. */

/**
 * An element with attributes and what stands in it.
 *
 * @param {string} tag - Its name.
 * @param {Object} [settings] - Attributes; `on` holds listeners by event, and null leaves an attribute out.
 * @param {...(Node|string)} children - What stands in it.
 */
export function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== null && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children);
  return element;
}

/** The element of this id. */
export const at = (id) => document.getElementById(id);

/** Put text into an element, unless it stands there already. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell what happened to those who do not see it. */
export function announce(text) {
  const place = at("announcer");
  place.textContent = "";
  setTimeout(() => say(place, text), 50); // the same words twice are told twice
}

/** Show what went wrong, until it is put away. */
export function trouble(message) {
  if (at("trouble").firstChild?.firstChild.textContent === message) return; // it was told
  const line = make("p", {}, message);
  line.append(make("button", { type: "button", on: { click: () => line.remove() } }, "Close"));
  at("trouble").replaceChildren(line);
}

/** Take away what went wrong before. */
export const noTrouble = () => at("trouble").replaceChildren();
