// Which part of the page is shown where there is not room for all of them.

import { byId } from "./dom.js";

/** Show a part: contexts, ask, document or live. Where all have room, nothing changes. */
export function show(view) {
  document.body.dataset.view = view;
  for (const button of byId("views").querySelectorAll("button")) {
    if (button.dataset.show === view) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
}

/** Whether the parts are shown one at a time. */
export const oneAtATime = () => getComputedStyle(byId("views")).display !== "none";

export function startViews() {
  for (const button of byId("views").querySelectorAll("button")) {
    button.addEventListener("click", () => show(button.dataset.show));
  }
  show(document.body.dataset.view);
}
