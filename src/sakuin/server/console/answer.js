// One question with its answer as it is shown: text, whether the documents speak of it, and where it looked.

import { placeOf, showPassages } from "./document.js";
import { element, fill, icon } from "./dom.js";
import { number, percent, problem, span, t } from "./i18n.js";
import { Offsets } from "./offsets.js";
import { announce, notice } from "./say.js";

/**
 * An entry: {question, at, text, evidence, footnotes, support, supported, finish, tokens, first, took, prefill, error,
 * state}; state is "waiting", "writing", "stopped", "failed" or "done", times are in milliseconds.
 */
export function entryElement(entry) {
  const parts = [element("h3", { class: "question-said", text: entry.question, dir: "auto" })];
  if (entry.state === "waiting") parts.push(waitingElement(entry));
  if (entry.supported === false && entry.state === "done") {
    parts.push(element("p", { class: "unsupported" }, icon("alert"), element("span", { text: t("unsupported") })));
  }
  if (entry.text) parts.push(element("div", { class: "answer-text", dir: "auto" }, ...textParts(entry)));
  if (entry.finish === "length") parts.push(element("p", { class: "hint", text: t("answer.length") }));
  if (entry.state === "stopped") parts.push(element("p", { class: "hint", text: t("answer.stopped") }));
  if (entry.error) parts.push(element("p", { class: "wrong" }, icon("alert"), element("span", { text: problem(entry.error) })));
  if (entry.evidence?.length) parts.push(sourcesElement(entry));
  if (entry.state === "done") parts.push(footElement(entry));
  return element("article", { class: "entry", "data-state": entry.state }, ...parts);
}

function waitingElement({ prefill }) {
  if (!prefill) return element("p", { class: "waiting" }, element("span", { class: "dots", "aria-hidden": "true" }), t("answer.waiting"));
  const words = t("answer.prefill", prefill);
  const value = prefill.total ? prefill.done / prefill.total : 0;
  return element("p", { class: "waiting" }, words, element("progress", { max: 1, value, "aria-label": words }));
}

/** The answer, with its footnotes as buttons that show their passages. */
function textParts(entry) {
  const parts = [];
  const offsets = new Offsets(entry.text);
  let end = 0;
  const sorted = [...(entry.footnotes ?? [])].sort((one, other) => one.at - other.at || one.mark - other.mark);
  for (const { at, mark } of sorted) {
    const index = entry.evidence.findIndex((one) => one.mark === mark);
    if (index < 0) continue;
    const start = offsets.at(at);
    parts.push(entry.text.slice(end, start), footnoteElement(entry, index));
    end = start;
  }
  return [...parts, entry.text.slice(end)];
}

function footnoteElement(entry, index) {
  const { mark, document } = entry.evidence[index];
  const label = t("sources.show", { mark, document });
  const button = element("button", { type: "button", class: "footnote", "aria-label": label, text: String(mark) });
  button.addEventListener("click", () => look(entry, index));
  return button;
}

function look(entry, index) {
  if (!showPassages(entry.evidence, index, true)) notice({ status: 400, message: t("document.changed") });
}

function sourcesElement(entry) {
  const list = element("ol", { class: "sources" }, ...entry.evidence.map((one, index) => sourceElement(entry, one, index)));
  return element("section", { class: "sources-part" }, element("h4", { text: t("sources") }), list);
}

function sourceElement(entry, one, index) {
  const place = placeOf(one);
  const share = t("source.weight", { share: percent(one.weight) });
  const button = element(
    "button",
    { type: "button", class: "source", title: share },
    element("span", { class: "mark", "aria-hidden": "true", text: String(one.mark) }),
    element("span", { class: "source-place" }, element("bdi", { text: one.document }), place ? ` · ${place}` : ""),
    element("span", { class: "source-text", dir: "auto", text: one.text.replace(/\s+/g, " ").trim() }),
    element("span", { class: "quiet", text: share }),
    meter(one.weight),
  );
  button.addEventListener("click", () => look(entry, index));
  return element("li", {}, button);
}

function meter(share) {
  const made = element("span", { class: "weight", "aria-hidden": "true" });
  made.style.setProperty("--share", Math.max(0, Math.min(1, share)));
  return made;
}

function footElement(entry) {
  const facts = [];
  if (typeof entry.support === "number") {
    const words = t("support", { share: percent(entry.support) });
    facts.push(element("span", { class: "support", title: t("support.explain") }, meter(entry.support), words));
  }
  const numbers = numbersOf(entry);
  if (numbers) facts.push(element("span", { text: numbers }));
  const copy = element("button", { type: "button", class: "link", "aria-label": t("answer.copy"), text: t("copy") });
  copy.addEventListener("click", () => copied(entry.text, copy));
  return element("p", { class: "entry-foot" }, ...facts, navigator.clipboard && entry.text ? copy : null);
}

function numbersOf({ first, took, tokens }) {
  if (!(first > 0)) return "";
  const writing = (took - first) / 1000;
  if (!(tokens > 1) || !(writing > 0)) return t("answer.first", { first: span(first) });
  return t("answer.numbers", { first: span(first), rate: number((tokens - 1) / writing, 1) });
}

async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return; // the browser asks, and was told no
  }
  announce(t("answer.copied"));
  fill(button, t("answer.copied"));
  setTimeout(() => fill(button, t("copy")), 2000);
}
