// Asking the chosen context: the head with its name, the questions and answers, and the box for the next one.

import { ask } from "./chat.js";
import { entryElement } from "./answer.js";
import { contexts, isAskable, isReady } from "./contexts.js";
import { askToAdd } from "./adding.js";
import { askToDelete } from "./dialogs.js";
import { showPassages } from "./document.js";
import { byId, element, fill, icon } from "./dom.js";
import { forget, recall, remember } from "./history.js";
import { bytes, counted, moment, problem, t, whenSaidAnew } from "./i18n.js";
import { bar, errorOf, factsOf, statusOf } from "./list.js";
import { Speaker, announce, notice } from "./say.js";

const LONGEST = 1024; // tokens of an answer
const EARLIER = 6; // turns before a question that it may go with

const asked = new Map(); // entries by context
const running = new Map(); // what ends the answer that is being written, by context
const elements = new WeakMap(); // of entries that are shown
const DRAWN_MS = 60; // between two pictures of an answer that is being written
let model = null;

/** By which name the model is asked. */
export function askAs(name) {
  model = name;
}

function entriesOf(id) {
  if (!asked.has(id)) asked.set(id, recall(id));
  return asked.get(id);
}

function render() {
  const context = contexts.current();
  byId("ask-head").hidden = !context;
  byId("composer").hidden = !context || !isAskable(context);
  if (context) renderHead(context);
  const parts = bodyOf(context);
  fill(byId("conversation"), ...parts);
  renderSubmit();
  toEnd();
}

function renderHead(context) {
  const told = (made, words) => {
    made.setAttribute("aria-label", words);
    made.title = words;
  };
  if (byId("ask-title").textContent !== context.name) byId("ask-title").textContent = context.name;
  byId("ask-meta").textContent = factsOf(context, { bytes, moment });
  const own = !context.shared; // of others' contexts only questions are taken
  byId("append").hidden = !own || !isReady(context);
  byId("delete").hidden = !own;
  byId("pin").hidden = !own || context.pinned === undefined || !isReady(context);
  byId("pin").setAttribute("aria-pressed", String(Boolean(context.pinned)));
  told(byId("pin"), t(context.pinned ? "unpin" : "pin"));
  fill(byId("pin"), icon(context.pinned ? "pin-full" : "pin"));
}

function bodyOf(context) {
  if (!context) {
    const state = contexts.all().length || !contexts.loaded ? "choose" : "none";
    return [empty(t(`ask.${state}.title`), t(`ask.${state}.text`), state === "none" ? addButton() : null)];
  }
  if (context.status === "failed" && !isAskable(context)) return [empty(t("ask.failed.title"), errorOf(context))];
  if (!isAskable(context)) {
    return [empty(t("ask.reading.title"), t("ask.reading.text"), bar(context), element("p", { class: "hint", text: statusOf(context) }))];
  }
  const notes = notesOf(context);
  const entries = entriesOf(context.id);
  if (!entries.length) return [notes, empty(t("ask.empty.title"), t("ask.empty.text"))];
  return [forgetElement(), notes, ...entries.map(shownAs)];
}

function forgetElement() {
  const button = element("button", { type: "button", class: "link", id: "forget", text: t("history.clear") });
  button.addEventListener("click", clearHistory);
  return element("p", { class: "history-head" }, button);
}

function clearHistory() {
  const context = contexts.current();
  running.get(context.id)?.abort();
  asked.delete(context.id);
  forget(context.id);
  announce(t("history.cleared", { name: context.name }));
  render();
  byId("question").focus();
}

/** What the server noted of the documents: what is not in their text, what was guessed. */
function notesOf(context) {
  const failed = context.status === "failed" ? [errorOf(context)] : [];
  const notes = [...failed, ...(context.documents ?? []).flatMap((one) => one.notes ?? [])];
  if (!notes.length) return null;
  return element("ul", { class: "notes" }, ...notes.map((note) => element("li", { text: note })));
}

function empty(title, text, ...more) {
  const parts = [element("p", { class: "empty-title", text: title }), element("p", { text }), ...more];
  return element("div", { class: "empty" }, ...parts);
}

function addButton() {
  const button = element("button", { type: "button", class: "primary" }, icon("plus"), t("add"));
  button.addEventListener("click", () => askToAdd());
  return button;
}

function shownAs(entry) {
  const made = entryElement(entry);
  elements.set(entry, made);
  return made;
}

function renderEntry(entry) {
  const before = elements.get(entry);
  if (!before?.isConnected) return;
  const followed = isAtEnd();
  const focused = before.contains(document.activeElement);
  const made = shownAs(entry);
  before.replaceWith(made);
  if (focused) byId("question").focus({ preventScroll: true });
  if (followed) toEnd();
}

const drawing = new Set();

/** Draw the entry once for all that comes within a moment. */
function renderSoon(entry) {
  if (drawing.has(entry)) return;
  drawing.add(entry);
  setTimeout(() => {
    drawing.delete(entry);
    renderEntry(entry);
  }, DRAWN_MS);
}

function isAtEnd() {
  const box = byId("conversation");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

/** To the end; of an answer that is there, however many passages it has, to its beginning. */
function toEnd() {
  const box = byId("conversation");
  const last = box.lastElementChild;
  const top = last ? last.getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop : 0;
  box.scrollTop = last?.dataset.state === "done" ? top - 24 : box.scrollHeight;
}

function renderSubmit() {
  const stops = running.has(contexts.chosen);
  const words = t(stops ? "question.stop" : "question.ask");
  byId("submit").setAttribute("aria-label", words);
  byId("submit").title = words;
  fill(byId("submit"), icon(stops ? "stop" : "send"));
}

function earlierTurns(entries) {
  if (!byId("earlier").checked) return [];
  const whole = entries.filter((entry) => entry.state === "done" && entry.text).slice(-EARLIER);
  return whole.flatMap(({ question, text }) => [
    { role: "user", content: question },
    { role: "assistant", content: text },
  ]);
}

async function submit() {
  const id = contexts.chosen;
  if (running.has(id)) return running.get(id).abort();
  const box = byId("question");
  const question = box.value.trim();
  if (!question) return box.focus();
  box.value = "";
  grow();
  const entries = entriesOf(id);
  const earlier = earlierTurns(entries);
  const entry = { question, at: Date.now() / 1000, text: "", evidence: [], state: "waiting" };
  entries.push(entry);
  running.set(id, new AbortController());
  notice(null);
  render();
  await answered(id, entry, earlier);
  running.delete(id);
  renderSubmit();
  remember(id, entries.filter(isWorthKeeping));
}

const isWorthKeeping = ({ state, text }) => state === "done" || (state === "stopped" && text);

async function answered(id, entry, earlier) {
  const began = performance.now();
  const speaker = new Speaker();
  const { signal } = running.get(id);
  try {
    for await (const event of ask({ model, context: id, question: entry.question, earlier, longest: LONGEST, signal })) {
      take(entry, event, speaker, performance.now() - began);
      renderSoon(entry);
    }
    renderEntry(entry);
  } catch (error) {
    if (error.name !== "AbortError") entry.error = { status: error.status ?? 0, code: error.code, message: error.message };
    entry.state = error.name === "AbortError" ? "stopped" : "failed";
    announce(entry.error ? problem(entry.error) : t("answer.stopped"));
    renderEntry(entry);
    return;
  }
  if (entry.supported === false) announce(t("unsupported"));
  const many = entry.evidence.length;
  announce(many ? counted("answer.said", many) : t("answer.said.none"));
  if (many && contexts.chosen === id) showPassages(entry.evidence);
}

function take(entry, event, speaker, ms) {
  if (event.prefill) entry.prefill = event.prefill;
  if (event.text) {
    entry.first ??= ms;
    entry.text += event.text;
    entry.state = "writing";
    speaker.add(event.text);
  }
  if (event.end) {
    Object.assign(entry, event.end, { state: "done", took: ms });
    delete entry.prefill;
    speaker.end();
  }
}

/** The box is as high as what is written in it, up to a limit of the style. */
function grow() {
  const box = byId("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

function startComposer() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("question").addEventListener("input", grow);
  byId("question").addEventListener("keydown", (event) => {
    // Enter that ends the choice of a Japanese word asks nothing; Safari tells it by the key code alone.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!running.has(contexts.chosen)) submit();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) running.get(contexts.chosen)?.abort();
  });
}

function startHead() {
  byId("append").addEventListener("click", () => askToAdd(contexts.current()));
  byId("delete").addEventListener("click", () => askToDelete(contexts.current()));
  byId("pin").addEventListener("click", () => {
    const context = contexts.current();
    contexts.change(context.id, { pinned: !context.pinned }).catch(notice);
  });
}

let seen = null; // what was drawn of the chosen context

export function startConversation() {
  startComposer();
  startHead();
  contexts.addEventListener("chosen", () => {
    render();
    if (isAskable(contexts.current() ?? {})) byId("question").focus();
  });
  contexts.addEventListener("changed", () => {
    const state = JSON.stringify([contexts.current(), contexts.loaded, contexts.all().length > 0]);
    if (state !== seen) render();
    seen = state;
  });
  contexts.addEventListener("removed", (event) => {
    running.get(event.detail)?.abort();
    asked.delete(event.detail);
    forget(event.detail);
  });
  whenSaidAnew(render);
  render();
}
