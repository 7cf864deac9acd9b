// What this browser keeps: the language, the colours, the history, and for this tab the key. A browser that
// keeps nothing, as private windows may, works the same until the page is closed.

const ROOT = new URL("../", import.meta.url).pathname;
const memory = new Map();

function read(storage, name) {
  try {
    return storage().getItem(name) ?? memory.get(name) ?? null;
  } catch {
    return memory.get(name) ?? null;
  }
}

/** Whether it could be written down. */
function write(storage, name, value) {
  memory.delete(name);
  try {
    if (value === null) storage().removeItem(name);
    else storage().setItem(name, value);
    return true;
  } catch {
    if (value !== null) memory.set(name, value);
    return false;
  }
}

const local = () => localStorage;
const session = () => sessionStorage;

export const kept = {
  get: (name) => read(local, `sakuin:${name}`),
  set: (name, value) => write(local, `sakuin:${name}`, value),
  // Of this server alone: several may lie under one address.
  here: (name) => read(local, `sakuin:${ROOT}:${name}`),
  setHere: (name, value) => write(local, `sakuin:${ROOT}:${name}`, value),
  key: () => read(session, `sakuin:${ROOT}:key`),
  setKey: (value) => write(session, `sakuin:${ROOT}:key`, value),
};
