// The server's API as the console asks it: with the key where one is needed, and errors as they are told.

import { kept } from "./kept.js";
import { events } from "./sse.js";

const ROOT = new URL("../", import.meta.url);

/** What the server, or the way to it, refused. `status` 0: the server was not reached. */
export class Refused extends Error {
  constructor(status, message, code = null, more = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.more = more;
  }
}

let unlocking = null;
let askForKey = async () => {
  throw new Refused(401, "");
};

/** `ask(message)` is called once when a key is missing or wrong; it ends when there is another to try. */
export function whenLocked(ask) {
  askForKey = ask;
}

async function unlocked(tried, message) {
  if (kept.key() !== tried) return; // somebody has given another key meanwhile
  unlocking ??= askForKey(message).finally(() => {
    unlocking = null;
  });
  await unlocking;
}

const addressOf = (path) => new URL(path, ROOT);
const authorization = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** One part of an address, whatever characters it has. */
export const part = (text) => encodeURIComponent(text);

async function problemOf(response) {
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // Not the server's own words: something between us and it has answered.
  }
  return new Refused(response.status, said.message ?? "", said.code ?? null, said);
}

/** The response to a request, whose status says that it went well. Raises `Refused`. */
export async function respond(path, { method = "GET", json, signal } = {}) {
  for (;;) {
    const key = kept.key();
    const headers = { Accept: "application/json, text/event-stream", ...authorization(key) };
    if (json !== undefined) headers["Content-Type"] = "application/json";
    const body = json === undefined ? undefined : JSON.stringify(json);
    let response;
    try {
      response = await fetch(addressOf(path), { method, headers, body, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "", "unreachable");
    }
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    await unlocked(key, problem.message);
  }
}

/** The JSON that a request is answered with; null where the answer has no body. */
export async function call(path, options) {
  const response = await respond(path, options);
  if (response.status === 204) return null;
  return response.json();
}

/** The events of a request, as they come; comments too. */
export async function* follow(path, options) {
  const response = await respond(path, options);
  try {
    yield* events(response);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "", "broken");
  }
}

/**
 * Send a form with files. `onSent(share)` is told how much has gone; fetch cannot tell that, so this is the older
 * way. `signal` ends it.
 */
export async function send(path, form, { onSent, signal } = {}) {
  for (;;) {
    const key = kept.key();
    const { status, text } = await sent(path, form, key, onSent, signal);
    let said = {};
    try {
      said = JSON.parse(text);
    } catch {
      // As above.
    }
    if (status >= 200 && status < 300) return said;
    const error = said.error ?? {};
    if (status !== 401) throw new Refused(status, error.message ?? "", error.code ?? null, error);
    await unlocked(key, error.message ?? "");
  }
}

function sent(path, form, key, onSent, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", addressOf(path));
    for (const [name, value] of Object.entries(authorization(key))) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      if (event.lengthComputable && event.total) onSent?.(event.loaded / event.total);
    };
    request.onload = () => resolve({ status: request.status, text: request.responseText });
    let began = false;
    request.upload.onloadstart = () => {
      began = true;
    };
    request.onerror = () => reject(new Refused(0, "", began ? "cut" : "unreachable"));
    request.onabort = () => reject(new DOMException("ended", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
