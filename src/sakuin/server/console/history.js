// What was asked of each context, kept in this browser: for this server, and for the key by which it was asked.

import { kept } from "./kept.js";

const MOST = 50; // questions of a context
const MOST_CHARACTERS = 400000; // of a context's history

// A key is `sk-<id>-<secret>`. Its id says who asked; the secret is written nowhere.
const asker = () => kept.key()?.split("-")[1] ?? "";
const place = (context) => `history:${asker()}:${context}`;

/** The entries of a context, oldest first. */
export function recall(context) {
  try {
    const found = JSON.parse(kept.here(place(context)) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

/** Keep these entries, without the oldest where they are too many or the browser has no room. */
export function remember(context, entries) {
  let held = entries.slice(-MOST);
  for (;;) {
    const written = JSON.stringify(held);
    if (written.length <= MOST_CHARACTERS && kept.setHere(place(context), written)) return;
    if (held.length <= 1) return;
    held = held.slice(Math.ceil(held.length / 2));
  }
}

export function forget(context) {
  kept.setHere(place(context), null);
}
