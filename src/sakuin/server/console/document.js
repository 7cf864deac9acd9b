// The text of a context's documents, and in it the passages that an answer looked at.

import { call, part } from "./api.js";
import { cut, lines, pieces, shown } from "./blocks.js";
import { contexts, isAskable } from "./contexts.js";
import { byId, element, fill } from "./dom.js";
import { problem, t, whenSaidAnew } from "./i18n.js";
import { Offsets } from "./offsets.js";
import { announce } from "./say.js";
import { oneAtATime, show } from "./views.js";

const COLUMN_PX = 7.6; // of a narrow character, by which the height of what is not laid out is guessed
const LINE_PX = 26;
const NEAR = 0.25; // of the view's height, where a passage is put

let documents = []; // {name, text, offset, marks, offsets}: marks in UTF-16 units, `offset` as the server counts
let loadedFor = null; // which context in which state
let loading = null;
let wrong = null;
let at = 0; // the document that is shown
let blocks = []; // of it, with their elements
let found = []; // the passages that are shown: {document, start, end, evidence}
let now = -1; // of them, the one that is looked at

const stateOf = (context) => JSON.stringify([context.id, context.created, context.tokens, context.bytes]);

/** Load and show the documents of the chosen context. Ends when they are there. */
async function load() {
  const context = contexts.current();
  if (!context || !isAskable(context)) {
    if (loadedFor !== null || !context) clear();
    return;
  }
  const state = stateOf(context);
  if (state === loadedFor) return;
  clear();
  loadedFor = state;
  loading = new AbortController();
  render();
  try {
    const { documents: read } = await call(`v1/contexts/${part(context.id)}/text`, { signal: loading.signal });
    if (loadedFor !== state) return;
    documents = read.map(prepared);
  } catch (error) {
    if (loadedFor !== state) return;
    wrong = error;
  }
  loading = null;
  render();
  if (waitingFor) showPassages(...waitingFor);
}

function clear() {
  loading?.abort();
  loading = null;
  [documents, loadedFor, wrong, at, found, now, waitingFor] = [[], null, null, 0, [], -1, null];
  render();
}

function prepared({ name, text, offset = 0, marks = [] }) {
  const offsets = new Offsets(text);
  return { name, text, offset, marks: marks.map((mark) => ({ ...mark, start: offsets.at(mark.start) })), offsets };
}

function render() {
  const region = byId("document-text");
  blocks = [];
  fill(byId("document-name"), ...documents.map((one, index) => element("option", { value: index, text: one.name })));
  byId("document-chooser").hidden = documents.length < 2;
  byId("document-name").value = String(at);
  byId("document-title").textContent = documents.length === 1 ? documents[0].name : t("document");
  if (!documents.length) {
    const words = wrong ? problem(wrong) : t(loading ? "document.waiting" : "document.none");
    fill(region, element("p", { class: "none", text: words }));
    renderPassages();
    return;
  }
  const { text, marks } = documents[at];
  const columns = Math.max(20, (region.clientWidth - 48) / COLUMN_PX);
  blocks = cut(text, marks).map((block) => ({ ...block, element: blockElement(text, block, columns) }));
  fill(region, ...blocks.flatMap(({ page, element: made }) => (page === null ? [made] : [pageElement(page), made])));
  region.scrollTop = 0;
  mark();
}

function pageElement(page) {
  return element("p", { class: "page" }, element("span", { text: t("document.page", { page: String(page) }) }));
}

function blockElement(text, block, columns) {
  const content = shown(text.slice(block.start, block.end));
  const made = element("div", { class: "block", dir: "auto" }, content);
  made.style.setProperty("contain-intrinsic-block-size", `auto ${lines(content, columns) * LINE_PX}px`);
  return made;
}

/** Put the passages of the shown document into its blocks, and take out those that were there. */
function mark() {
  const here = found.map((one) => (one.document === at ? one : { start: 0, end: 0 }));
  for (const block of blocks) {
    const parts = pieces(block, here);
    const marked = parts.some((one) => one.passage !== null);
    if (!marked && !block.marked) continue;
    block.marked = marked;
    fill(block.element, ...parts.map((one) => pieceElement(documents[at].text, one)));
  }
  renderPassages();
}

function renderPassages() {
  const many = found.length;
  byId("passages").hidden = many === 0;
  byId("passage-count").textContent = many ? t("passage.count", { at: now + 1, all: many }) : "";
  showPlace();
}

function pieceElement(text, { start, end, passage }) {
  const content = shown(text.slice(start, end));
  if (passage === null) return document.createTextNode(content);
  const attributes = { class: passage === now ? "passage now" : "passage", "data-passage": passage, tabindex: -1 };
  return element("mark", attributes, content);
}

let waitingFor = null; // passages that are to be shown when the text has come

/**
 * Show the passages of an answer, and the one of `which`. `here`: the reader has asked for it, so the document
 * comes to the front where there is room for one part only.
 * Returns false where the documents are no longer those that were asked.
 */
export function showPassages(evidence, which = 0, here = false) {
  if (loading) {
    waitingFor = [evidence, which, here];
    return true;
  }
  waitingFor = null;
  found = evidence.map(located).filter(Boolean);
  const index = found.findIndex((one) => one.evidence === evidence[which]);
  now = index;
  if (index < 0) {
    mark();
    return evidence.length === 0;
  }
  go(index, here);
  return true;
}

/** Where a passage lies: in a document of its name, whose text is the passage's there. */
function located(evidence) {
  for (const [index, one] of documents.entries()) {
    if (one.name !== evidence.document) continue;
    // A file that went on after other documents is shown in parts, whose passages count from the file's start.
    const [start, end] = [evidence.start, evidence.end].map((point) => one.offsets.at(point - one.offset));
    if (one.text.slice(start, end) === evidence.text) return { document: index, start, end, evidence };
  }
  return null;
}

function go(index, here) {
  now = index;
  const { document: where, evidence } = found[index];
  if (where !== at) {
    at = where;
    render();
  } else mark();
  if (here && oneAtATime()) show("document");
  scrollToPassage();
  if (!here) return;
  const place = placeOf(evidence, { document: true });
  announce(t("passage.said", { at: index + 1, all: found.length, place: `${place}: ${evidence.text}` }));
}

/** What is not laid out has a guessed height: look again where the passage is until it stays. */
function scrollToPassage(tries = 4) {
  const region = byId("document-text");
  const target = region.querySelector("mark.now");
  if (!target) return;
  const off = target.getBoundingClientRect().top - region.getBoundingClientRect().top - region.clientHeight * NEAR;
  if (Math.abs(off) > 2) region.scrollTop += off;
  if (tries > 0) requestAnimationFrame(() => scrollToPassage(tries - 1));
  else showPlace();
}

/** Page, heading and lines of a passage, with the document's name if asked for. */
export function placeOf(evidence, { document = false } = {}) {
  const { page, heading, line_start: first, line_end: last } = evidence;
  const place = document ? [evidence.document] : [];
  if (page) place.push(t("source.page", { page: String(page) }));
  if (heading) place.push(heading);
  if (!page && !heading && first) {
    place.push(t(first === last ? "source.line" : "source.lines", { first: String(first), last: String(last) }));
  }
  return place.join(" · ");
}

/** Above the text: page and heading of what is seen, or of the passage if it is seen. */
function showPlace() {
  byId("document-place").textContent = documents.length ? placeNow() : "";
}

function placeNow() {
  const frame = byId("document-text").getBoundingClientRect();
  const target = byId("document-text").querySelector("mark.now")?.getBoundingClientRect();
  if (target && target.bottom > frame.top && target.top < frame.bottom) return placeOf(found[now].evidence);
  const top = blocks.findLast((block) => block.element.getBoundingClientRect().top <= frame.top + 40) ?? blocks[0];
  if (!top) return "";
  const held = documents[at].marks.findLast((one) => one.start <= top.start);
  return held ? placeOf({ page: held.page, heading: held.heading }) : "";
}

function step(by) {
  if (found.length) go((now + by + found.length) % found.length, true);
}

export function startDocument() {
  contexts.addEventListener("chosen", load);
  contexts.addEventListener("changed", load);
  byId("document-name").addEventListener("change", (event) => {
    at = Number(event.target.value);
    render();
  });
  byId("passage-before").addEventListener("click", () => step(-1));
  byId("passage-next").addEventListener("click", () => step(1));
  byId("document-text").addEventListener("click", (event) => {
    const passage = event.target.closest?.("mark.passage")?.dataset.passage;
    if (passage !== undefined) go(Number(passage), true);
  });
  let soon = null;
  byId("document-text").addEventListener("scroll", () => {
    soon ??= setTimeout(() => {
      soon = null;
      showPlace();
    }, 100);
  });
  whenSaidAnew(() => {
    for (const [index, page] of byId("document-text").querySelectorAll(".page span").entries()) {
      const numbers = blocks.filter((block) => block.page !== null);
      page.textContent = t("document.page", { page: String(numbers[index].page) });
    }
    if (documents.length) mark();
    else render();
  });
  render();
}
