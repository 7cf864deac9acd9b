// The dialog by which documents are added, and files that are dropped on the page.

import { contexts } from "./contexts.js";
import { byId, element, fill, icon } from "./dom.js";
import { open } from "./dialogs.js";
import { bytes, problem, t, whenSaidAnew } from "./i18n.js";
import { notice } from "./say.js";
import { show } from "./views.js";

let files = [];
let target = null; // the context that is added to; null for a new one
let suggested = ""; // a name made from the first file's

/** Open the dialog for a new context, or to add to one; with files that have been dropped already. */
export function askToAdd(context = null, dropped = []) {
  if (byId("add-dialog").open) return take(dropped);
  target = context;
  files = [];
  byId("add-form").reset();
  suggested = "";
  byId("paste").open = false;
  sayTitle();
  for (const id of ["name-field", "pinned-field"]) byId(id).hidden = context !== null;
  byId("replace-field").hidden = context === null;
  take(dropped);
  open(byId("add-dialog"));
  (dropped.length ? byId("add-submit") : byId("files")).focus();
}

function sayTitle() {
  byId("add-title").textContent = target ? t("append.title", { name: target.name }) : t("add.title");
}

/** Add to the files that are chosen; the same file twice is one. */
function take(more) {
  const mark = (file) => `${file.name} ${file.size} ${file.lastModified}`;
  const held = new Set(files.map(mark));
  for (const file of more) if (!held.has(mark(file))) files.push(file);
  byId("add-wrong").textContent = "";
  suggest();
  render();
}

/** A name that a context may have and none has, unless one was written. */
function suggest() {
  if (byId("name").value !== suggested) return;
  const stem = (files[0]?.name ?? "").normalize("NFC").replace(/\.[^.]*$/, "");
  const base = stem.replace(/[^\p{L}\p{N}_.+-]+/gu, "-").replace(/^[^\p{L}\p{N}]+|-+$/gu, "").slice(0, 60);
  suggested = base;
  for (let count = 2; base && contexts.get(suggested); count += 1) suggested = `${base}-${count}`;
  byId("name").value = suggested;
}

function render() {
  fill(byId("chosen"), ...files.map(chosen));
  byId("chosen").hidden = files.length === 0;
}

function chosen(file) {
  const label = t("files.remove", { name: file.name });
  const attributes = { type: "button", class: "plain square", "aria-label": label, title: label };
  const remove = element("button", attributes, icon("close"));
  remove.addEventListener("click", () => {
    files = files.filter((other) => other !== file);
    suggest();
    render();
    byId("files").focus();
  });
  const name = element("bdi", { class: "file-name", text: file.name });
  return element("li", {}, icon("file"), name, element("span", { class: "hint", text: bytes(file.size) }), remove);
}

function formOf() {
  const form = new FormData();
  const name = byId("name").value.trim();
  if (!target && name) form.set("name", name);
  if (!target && byId("pinned").checked) form.set("pinned", "true");
  if (target && byId("replace").checked) form.set("replace", "true");
  const text = byId("pasted").value;
  // A document of its own, under a name that no other one has.
  const now = new Date().toISOString().slice(0, 19).replace(/[T:]/g, "-");
  const called = target ? `${t("text.file")} ${now}.txt` : `${t("text.file")}.txt`;
  const pasted = text.trim() ? [new File([text], called, { type: "text/plain" })] : [];
  for (const file of [...files, ...pasted]) form.append("files", file, file.name);
  return { form, shown: target?.name ?? (name || files[0]?.name || t("text.file")), some: files.length + pasted.length };
}

async function submit(event) {
  event.preventDefault();
  const { form, shown, some } = formOf();
  if (!some) {
    byId("add-wrong").textContent = t("add.nothing");
    return;
  }
  const [name, text] = [byId("name").value, byId("pasted").value];
  const again = { target, files, name, text, pinned: byId("pinned").checked, replace: byId("replace").checked };
  byId("add-dialog").close();
  notice(null);
  show("contexts");
  try {
    const taken = await contexts.send(form, shown, target?.id ?? null);
    contexts.choose(taken.id);
  } catch (error) {
    if (error.name === "AbortError") return;
    reopen(again, error);
  }
}

/** What was refused is there to be sent again, unless something else is being added by now. */
function reopen(again, error) {
  if (byId("add-dialog").open) {
    notice(error);
    return;
  }
  askToAdd(again.target, again.files);
  byId("name").value = again.name;
  byId("pasted").value = again.text;
  byId("paste").open = Boolean(again.text);
  byId("pinned").checked = again.pinned;
  byId("replace").checked = again.replace;
  const isName = error.status === 409 || error.more?.param === "name";
  byId("add-wrong").textContent = error.status === 409 && !again.target ? t("name.taken") : problem(error);
  if (isName && !again.target) byId("name").focus();
}

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;

function filesOf(transfer) {
  const found = [];
  for (const item of transfer.items) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry?.();
    if (entry?.isDirectory) notice({ status: 400, message: t("drop.folder", { name: entry.name }) });
    else found.push(item.getAsFile());
  }
  return found.filter(Boolean);
}

function startDropping() {
  const cover = byId("drop");
  let inside = 0; // elements that the pointer has entered and not left
  const leave = () => {
    inside = 0;
    cover.hidden = true;
  };
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    inside += 1;
    cover.hidden = byId("add-dialog").open;
  });
  addEventListener("dragleave", (event) => {
    if (carriesFiles(event) && (inside -= 1) <= 0) leave();
  });
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    leave();
    const dropped = filesOf(event.dataTransfer);
    if (dropped.length) askToAdd(null, dropped);
  });
}

export function startAdding() {
  byId("add").addEventListener("click", () => askToAdd());
  byId("files").addEventListener("change", () => {
    take([...byId("files").files]);
    byId("files").value = ""; // so that the same file can be chosen again
  });
  byId("add-form").addEventListener("submit", submit);
  whenSaidAnew(() => {
    sayTitle();
    render();
  });
  startDropping();
}
