// What is said aloud to who does not see the page, and the bar for what went wrong.

import { byId, element, fill, icon } from "./dom.js";
import { problem, t } from "./i18n.js";

const announcer = () => byId("announcer");

/** Have a screen reader say this when it has said what it is saying. */
export function announce(words) {
  const line = element("p", { text: words });
  announcer().append(line);
  setTimeout(() => line.remove(), 20000); // it is said; nobody shall find it again at the page's end
}

/** Show what went wrong until it is closed; null takes it away. */
export function notice(error) {
  const bar = byId("notice");
  bar.hidden = error === null;
  if (error === null) return fill(bar);
  const close = element("button", { type: "button", class: "plain square", "aria-label": t("close") }, icon("close"));
  close.addEventListener("click", () => notice(null));
  return fill(bar, icon("alert"), element("p", { text: problem(error) }), close);
}

/** A text that grows is said by sentences: word for word nobody can follow it. */
export class Speaker {
  #rest = "";

  add(piece) {
    this.#rest += piece;
    const cut = this.#rest.search(/[.!?。！？\n](?=\s|$)[^.!?。！？\n]*$/);
    if (cut < 0 || this.#rest.length < 40) return;
    announce(this.#rest.slice(0, cut + 1).trim());
    this.#rest = this.#rest.slice(cut + 1);
  }

  end() {
    if (this.#rest.trim()) announce(this.#rest.trim());
    this.#rest = "";
  }
}
