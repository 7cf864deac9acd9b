// Dialogs: one that asks before a context is deleted, one that asks for the key.

import { contexts } from "./contexts.js";
import { byId } from "./dom.js";
import { problem, t } from "./i18n.js";
import { kept } from "./kept.js";
import { announce } from "./say.js";

/** Open a dialog. Escape, its buttons and a click beside it close it, unless it has to be answered. */
export function open(dialog) {
  if (dialog.open) return;
  for (const wrong of dialog.querySelectorAll(".wrong")) wrong.textContent = "";
  dialog.showModal();
}

export function startDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
    dialog.addEventListener("mousedown", (event) => {
      if (event.target === dialog && dialog.id !== "key-dialog") dialog.close();
    });
  }
  startDelete();
  startKey();
}

let doomed = null;

/** Ask whether to delete a context, and do it. */
export function askToDelete(context) {
  doomed = context;
  byId("delete-title").textContent = t("delete.title", { name: context.name });
  open(byId("delete-dialog"));
}

function startDelete() {
  const dialog = byId("delete-dialog");
  byId("delete-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { id, name } = doomed;
    try {
      await contexts.remove(id);
    } catch (error) {
      byId("delete-wrong").textContent = problem(error);
      return;
    }
    dialog.close();
    announce(t("said.deleted", { name }));
    (byId("context-list").querySelector("button") ?? byId("add")).focus();
  });
}

let give = null;

/** Ask for a key; ends when one was given. */
export function askForKey(message) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  const wasThere = Boolean(kept.key());
  input.value = "";
  open(dialog);
  if (wasThere) byId("key-wrong").textContent = message ? problem({ status: 401, message }) : t("key.wrong");
  if (wasThere) input.setAttribute("aria-invalid", "true");
  input.focus();
  return new Promise((resolve) => {
    give = resolve;
  });
}

function startKey() {
  const dialog = byId("key-dialog");
  dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing works without one
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    if (!key || /[^\x21-\x7e]/.test(key)) {
      byId("key-wrong").textContent = t(key ? "key.wrong" : "key.missing");
      byId("key").setAttribute("aria-invalid", "true");
      return;
    }
    byId("key").removeAttribute("aria-invalid");
    kept.setKey(key);
    byId("forget-key").hidden = false;
    dialog.close();
    give?.(key);
  });
  byId("forget-key").hidden = !kept.key();
  byId("forget-key").addEventListener("click", () => {
    kept.setKey(null);
    location.reload();
  });
}
