// What the server does: its figures of the last minutes, as charts and as a table.

import { call } from "./api.js";
import { chart, known } from "./charts.js";
import { byId, element, fill } from "./dom.js";
import { bytes, counted, languageNow, number, percent, span, t, whenSaidAnew } from "./i18n.js";

const LEAST_MS = 5000; // between two looks: each is a request that counts
const REFUSED_MS = 60000;

const ms = (value) => span(value);
const share = (value) => percent(value, value > 0.9 && value < 1 ? 1 : 0);
const SERIES = {
  first_token_ms: { words: ms },
  token_ms: { words: ms },
  tokens_per_s: { words: (value) => number(value, value < 10 ? 1 : 0) },
  coverage: { words: share, limits: [0, 1] },
  touched: { words: share, limits: [0, 1] },
  memory_bytes: { words: bytes, binary: true },
};

let stats = null;
let refused = false;
let timer = null;

async function look() {
  clearTimeout(timer);
  timer = null;
  if (document.hidden) return; // looked at again when somebody does
  let wait = LEAST_MS;
  try {
    stats = await call("v1/stats");
    refused = false;
    wait = Math.max((stats.interval ?? 0) * 1000, LEAST_MS);
  } catch (error) {
    refused = error.status !== 0 && error.status !== 429;
    if (refused || error.status === 429) wait = REFUSED_MS;
    if (refused) stats = null;
  }
  render();
  timer = setTimeout(look, wait);
}

function render() {
  const shown = !byId("live-values").hidden;
  byId("live-table").textContent = t(shown ? "live.table.hide" : "live.table.show");
  byId("live-table").setAttribute("aria-expanded", String(shown));
  byId("live-table").hidden = !stats;
  byId("live-now").textContent = stats ? nowWords() : "";
  if (!stats) {
    fill(byId("charts"), element("p", { class: "none", text: t(refused ? "live.refused" : "live.none") }));
    fill(byId("live-values"));
    return;
  }
  fill(byId("charts"), ...Object.keys(SERIES).map(chartOf));
  if (shown) fill(byId("live-values"), tableElement());
}

function nowWords() {
  const { running, waiting } = stats;
  const words = running === null ? [] : [t("live.now", { running, waiting: waiting ?? 0 })];
  const length = Math.max(...Object.values(stats.series).map((series) => series.length), 0);
  const minutes = Math.round((length * stats.interval) / 60);
  if (minutes > 0) words.push(t("live.span", { span: counted("minutes", minutes) }));
  return words.join(" · ");
}

function chartOf(name) {
  const { words, limits, binary } = SERIES[name];
  const series = stats.series[name] ?? [];
  const values = known(series).map(({ value }) => value);
  const title = t(`chart.${name}`);
  const now = values.length ? words(values.at(-1)) : "–";
  const said = values.length
    ? t("chart.said", { name: title, now, least: words(Math.min(...values)), most: words(Math.max(...values)) })
    : t("chart.said.none", { name: title });
  return chart({ series, title, said, now, limits, binary, ends: (low, high) => [words(low), words(high)] });
}

function tableElement() {
  const names = Object.keys(SERIES);
  const time = new Intl.DateTimeFormat(languageNow(), { hour: "numeric", minute: "2-digit", second: "2-digit" });
  const head = [t("live.table.time"), ...names.map((name) => t(`chart.${name}`))];
  const length = Math.max(...names.map((name) => stats.series[name]?.length ?? 0));
  const rows = [];
  for (let at = length - 1; at >= 0; at -= 1) {
    const values = names.map((name) => stats.series[name]?.[at] ?? null);
    if (values.every((value) => value === null)) continue;
    const then = new Date((stats.now - (length - 1 - at) * stats.interval) * 1000);
    const cells = values.map((value, index) => element("td", { text: value === null ? "–" : SERIES[names[index]].words(value) }));
    rows.push(element("tr", {}, element("th", { scope: "row", text: time.format(then) }), ...cells));
  }
  const top = element("tr", {}, ...head.map((text) => element("th", { scope: "col", text })));
  return element("table", {}, element("caption", { class: "quiet", text: t("live.table.label") }), element("thead", {}, top), element("tbody", {}, ...rows));
}

export function startLive() {
  byId("live-table").addEventListener("click", () => {
    byId("live-values").hidden = !byId("live-values").hidden;
    render();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && timer === null) look();
  });
  whenSaidAnew(render);
  render();
  look();
}
