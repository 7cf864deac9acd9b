// What the page says, in the language that was chosen: English or Japanese.

import english from "./english.js";
import japanese from "./japanese.js";
import { kept } from "./kept.js";

const WORDS = { en: english, ja: japanese };
const listeners = new Set();

function first() {
  const chosen = kept.get("language");
  if (chosen in WORDS) return chosen;
  const wanted = (navigator.languages ?? [navigator.language]).map((name) => name.slice(0, 2).toLowerCase());
  return wanted.find((name) => name in WORDS) ?? "en";
}

let language = first();

export const languageNow = () => language;

/** Call this whenever the language has changed. */
export function whenSaidAnew(listener) {
  listeners.add(listener);
}

export function speak(chosen) {
  language = chosen;
  kept.set("language", chosen);
  sayAll();
  for (const listener of listeners) listener();
}

/** The words for `key`; `{name}` in them is filled from `values`, numbers as the language writes them. */
export function t(key, values = {}) {
  const words = WORDS[language][key] ?? english[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : String(value ?? "");
  });
}

/** As `t`, with `key.one` where the count is one and the language tells it apart. */
export function counted(key, count, values = {}) {
  const one = new Intl.PluralRules(language).select(count) === "one" && `${key}.one` in WORDS[language];
  return t(one ? `${key}.one` : key, { ...values, count });
}

/** Whatever the page holds from the start: text by `data-t`, attributes by `data-t-label` and the like. */
export function sayAll() {
  document.documentElement.lang = language;
  document.title = t("title");
  const attributes = { tLabel: "aria-label", tTitle: "title", tPlaceholder: "placeholder" };
  for (const one of document.querySelectorAll("[data-t]")) one.textContent = t(one.dataset.t);
  for (const [name, attribute] of Object.entries(attributes)) {
    const marked = `data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const one of document.querySelectorAll(`[${marked}]`)) one.setAttribute(attribute, t(one.dataset[name]));
  }
}

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

export const percent = (share, digits = 0) =>
  new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: digits }).format(share);

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes, as people write them. */
export function bytes(count) {
  let at = 0;
  for (; count >= 1024 && at < SIZES.length - 1; at += 1) count /= 1024;
  return `${number(count, count < 10 && at > 0 ? 1 : 0)} ${SIZES[at]}`;
}

/** Seconds or milliseconds, from milliseconds. */
export function span(ms) {
  return ms < 1000 ? t("ms", { ms: number(ms, ms < 10 ? 1 : 0) }) : t("seconds", { s: number(ms / 1000, ms < 10000 ? 1 : 0) });
}

/** A moment, from seconds since 1970: with the day unless it was today. */
export function moment(seconds) {
  const then = new Date(seconds * 1000);
  const today = then.toDateString() === new Date().toDateString();
  const day = today ? {} : { day: "numeric", month: "short", year: "numeric" };
  return new Intl.DateTimeFormat(language, { ...day, hour: "numeric", minute: "2-digit" }).format(then);
}

/** What was refused, in the reader's language where it is a common thing, else in the server's words. */
export function problem(error) {
  const known = error.status === 0 ? `refused.${error.code}` : `refused.${error.status}`;
  const words = WORDS[language][known];
  const said = error.message?.trim() ?? "";
  if (language === "en") return said || words || t("refused.other", { status: error.status ?? "" });
  if (!words) return said || t("refused.other", { status: error.status ?? "" });
  return said ? `${words}（${said}）` : words;
}
