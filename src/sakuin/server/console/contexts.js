// The contexts of the server, and which one is chosen. Files on their way to it are here too, as contexts
// whose status is "sending".

import { call, follow, part, send } from "./api.js";

const AGAIN_MS = 2000;
const GOING_ON = new Set(["sending", "queued", "reading"]);

export const isReady = (context) => context.status === "ready";
// What is added to a context is read while the context can be asked as it was.
export const isAskable = (context) => context.askable ?? isReady(context);
export const isGoingOn = (context) => GOING_ON.has(context.status);

/** How much has been sent or read, 0 to 1; null where it is not known. */
export function share(context) {
  if (context.status === "sending") return context.sent;
  if (context.tokens > 0 && context.tokens_done >= 0) return Math.min(context.tokens_done / context.tokens, 1);
  return typeof context.progress === "number" ? context.progress : null;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Contexts extends EventTarget {
  #all = new Map();
  #watched = new Set();
  #sending = new Map(); // ends of what is being sent, by id
  chosen = null; // an id
  loaded = false;

  /** Newest first. */
  all() {
    const held = [...this.#all.values()];
    return held.sort((one, other) => (other.created ?? 0) - (one.created ?? 0) || one.id.localeCompare(other.id));
  }

  get(id) {
    return this.#all.get(id) ?? null;
  }

  current() {
    return this.get(this.chosen);
  }

  async load() {
    const { data } = await call("v1/contexts");
    const sending = [...this.#all.values()].filter((context) => context.status === "sending");
    const named = data.map((context) => ({ ...this.get(context.id), name: context.id, ...context }));
    this.#all = new Map([...named, ...sending].map((context) => [context.id, context]));
    this.loaded = true;
    if (this.chosen && !this.current()) this.choose(null);
    for (const context of this.#all.values()) if (context.status !== "sending" && isGoingOn(context)) this.watch(context.id);
    this.#told("changed");
  }

  choose(id) {
    if (id === this.chosen) return;
    this.chosen = id;
    this.#told("chosen");
    if (id !== null) this.#describe(id);
  }

  /** Lists leave out which documents a context has. */
  async #describe(id) {
    if (this.get(id)?.status === "sending" || this.get(id)?.documents) return;
    try {
      const found = await call(`v1/contexts/${part(id)}`);
      if (this.#all.has(id)) this.#put(found);
    } catch (error) {
      if (error.status !== 404) return; // the list says enough
      this.#all.delete(id);
      if (this.chosen === id) this.choose(null);
      this.#told("changed");
    }
  }

  /** Send a new context, or more for the one called `to`. Ends when the server has taken it. */
  async send(form, name, to = null) {
    const ended = new AbortController();
    const before = to === null ? null : this.get(to);
    const id = to ?? `\u0000${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    this.#put({ ...before, id, name, status: "sending", sent: 0, created: before?.created ?? Date.now() / 1000 });
    this.#sending.set(id, ended);
    try {
      const path = to === null ? "v1/contexts" : `v1/contexts/${part(to)}/append`;
      const onSent = (sent) => this.#put({ ...this.get(id), sent });
      const taken = await send(path, form, { onSent, signal: ended.signal });
      this.#all.delete(id);
      this.#put(taken);
      if (isGoingOn(taken)) this.watch(taken.id);
      else this.#ended(taken);
      return taken;
    } catch (error) {
      this.#all.delete(id);
      if (before) this.#put(before);
      this.#told("changed");
      throw error;
    } finally {
      this.#sending.delete(id);
    }
  }

  /** Hear how a context is being read until it is ready or has failed. */
  async watch(id) {
    if (this.#watched.has(id)) return;
    this.#watched.add(id);
    try {
      while (this.#all.has(id)) {
        const seen = await this.#heard(id);
        if (seen && !isGoingOn(seen)) return this.#ended(seen);
        await pause(AGAIN_MS); // the stream was cut: a proxy may do that, and the reading goes on
      }
    } catch (error) {
      if (error.status === 404) this.#all.delete(id);
      this.#told("changed");
    } finally {
      this.#watched.delete(id);
    }
  }

  async #heard(id) {
    let seen = null;
    try {
      for await (const event of follow(`v1/contexts/${part(id)}/events`)) {
        if (event.data === undefined || event.data === "[DONE]") continue;
        if (!this.#all.has(id)) return null;
        const said = JSON.parse(event.data);
        if (said.id !== id) break; // an error: asking for the context says which
        seen = said;
        this.#put(seen);
      }
    } catch (error) {
      if (error.status !== 0) throw error;
    }
    if (seen && !isGoingOn(seen)) return seen;
    seen = await call(`v1/contexts/${part(id)}`).catch((error) => {
      if (error.status === 0) return null;
      throw error;
    });
    if (seen && this.#all.has(id)) this.#put(seen);
    return seen;
  }

  async remove(id) {
    if (this.#sending.has(id)) this.#sending.get(id).abort();
    else await call(`v1/contexts/${part(id)}`, { method: "DELETE" });
    this.#all.delete(id);
    if (this.chosen === id) this.choose(null);
    this.#told("changed");
    this.#told("removed", id);
  }

  async change(id, values) {
    this.#put(await call(`v1/contexts/${part(id)}`, { method: "PATCH", json: values }));
  }

  #put(context) {
    const before = this.#all.get(context.id);
    this.#all.set(context.id, { name: context.id, ...before, ...context, documents: context.documents ?? null });
    this.#told("changed");
  }

  #ended(context) {
    this.#told("read", context.id);
    if (!context.documents && isReady(context)) this.#describe(context.id);
  }

  #told(name, id = null) {
    this.dispatchEvent(new CustomEvent(name, { detail: id }));
  }
}

export const contexts = new Contexts();
