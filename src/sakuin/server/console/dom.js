// Elements made and found. Whatever is shown goes through text nodes: nothing here takes markup.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. `attributes`: `class`, `text`, `on` (event listeners by name), or any attribute; true is an
 * empty one, false, null and undefined are left out.
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "on") for (const [event, call] of Object.entries(value)) made.addEventListener(event, call);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A new element of a drawing. */
export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/** A sign of `icons.svg`, which says nothing to who does not see it. */
export function icon(name) {
  const href = new URL(`icons.svg#${name}`, import.meta.url).href;
  return drawn("svg", { class: "icon", "aria-hidden": "true", focusable: "false" }, drawn("use", { href }));
}

/** Put these children in place of what is there. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

/** Whether things may move: not where the reader has asked for less of it. */
export const mayMove = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Bring an element into view. */
export function scrollTo(target, block = "center") {
  target.scrollIntoView({ block, inline: "nearest", behavior: mayMove() ? "smooth" : "instant" });
}
