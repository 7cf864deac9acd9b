// The list of contexts at the side: which there are, and how far those are that are being read.

import { contexts, isGoingOn, isReady, share } from "./contexts.js";
import { byId, element, fill, icon } from "./dom.js";
import { counted, percent, problem, t, whenSaidAnew } from "./i18n.js";
import { announce, notice } from "./say.js";
import { show } from "./views.js";

/** What a context is doing, or how much it holds. */
export function statusOf(context) {
  if (context.status === "failed") return t("status.failed");
  if (context.status === "sending") return t("status.sending", { share: percent(share(context) ?? 0) });
  if (context.status === "queued") return t("status.queued");
  if (isReady(context)) return counted("tokens", context.tokens ?? 0);
  if (!(context.tokens > 0)) return t("status.opening");
  return t("status.reading", { done: context.tokens_done ?? 0, total: context.tokens });
}

/** A bar for what is going on. */
export function bar(context) {
  const done = share(context);
  const value = done === null ? null : Math.round(done * 1000) / 1000;
  return element("progress", { max: 1, value, "aria-label": `${context.name}: ${statusOf(context)}` });
}

function item(context) {
  const name = element("bdi", { class: "context-name", text: context.name });
  const status = element("span", { class: "context-status" }, statusOf(context));
  if (context.status === "failed") status.prepend(icon("alert"));
  if (context.pinned) status.prepend(icon("pin"));
  const chosen = context.id === contexts.chosen;
  const button = element(
    "button",
    { type: "button", class: "context", "aria-current": chosen ? "true" : null, "data-id": context.id },
    name,
    status,
  );
  button.addEventListener("click", () => {
    contexts.choose(context.id);
    show("ask");
  });
  if (context.status === "sending") button.disabled = true;
  const made = element("li", { class: isGoingOn(context) ? "going-on" : null }, button);
  if (isGoingOn(context)) made.append(bar(context));
  if (context.status === "sending") made.append(canceller(context));
  return made;
}

function canceller(context) {
  const label = t("cancel.sending", { name: context.name });
  const attributes = { type: "button", class: "plain square cancel", "aria-label": label, title: label };
  const button = element("button", { ...attributes, "data-id": `${context.id} cancel` }, icon("close"));
  button.addEventListener("click", () => contexts.remove(context.id).catch(notice));
  return button;
}

function render() {
  const list = byId("context-list");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const all = contexts.all();
  if (all.length) fill(list, ...all.map(item));
  else fill(list, element("li", { class: "none", text: t(contexts.loaded ? "contexts.none" : "contexts.waiting") }));
  if (focused) list.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

let waiting = false;

/** Draw once for all that changes before the next picture. */
function renderSoon() {
  if (waiting) return;
  waiting = true;
  setTimeout(() => {
    waiting = false;
    render();
  }, 50);
}

const heard = new Map(); // by context, the last quarter that was said

function sayProgress() {
  for (const context of contexts.all()) {
    if (!isGoingOn(context)) continue;
    const quarter = Math.floor((share(context) ?? 0) * 4);
    const stage = `${context.status} ${quarter}`;
    if (quarter === 0 || heard.get(context.id) === stage) continue;
    heard.set(context.id, stage);
    announce(t("said.progress", { name: context.name, share: percent(quarter / 4) }));
  }
}

function sayEnd(id) {
  const context = contexts.get(id);
  heard.delete(id);
  if (!context) return;
  if (isReady(context)) announce(t("said.ready", { name: context.name }));
  else announce(t("said.failed", { name: context.name, error: errorOf(context) }));
}

/** Why a context could not be read: a sentence of the server's. */
export function errorOf(context) {
  const error = context.error;
  if (!error) return "";
  return typeof error === "string" ? error : problem({ status: 400, message: error.message });
}

export function startList() {
  contexts.addEventListener("changed", () => {
    renderSoon();
    sayProgress();
  });
  contexts.addEventListener("chosen", render);
  contexts.addEventListener("read", (event) => sayEnd(event.detail));
  whenSaidAnew(render);
  render();
}

/** Short facts on a context for the line below its name. */
export function factsOf(context, words) {
  const facts = [];
  const documents = context.documents?.length ?? 0;
  if (documents > 1) facts.push(counted("documents", documents));
  if (isReady(context)) facts.push(counted("tokens", context.tokens ?? 0));
  else facts.push(statusOf(context));
  if (context.bytes) facts.push(words.bytes(context.bytes));
  if (context.created && isReady(context)) facts.push(t("read.at", { when: words.moment(context.created) }));
  if (context.kept_until) facts.push(t("kept.until", { when: words.moment(context.kept_until) }));
  return facts.join(" · ");
}
