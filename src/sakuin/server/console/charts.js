// Small line charts: one series over time, drawn by hand.

import { drawn, element } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 64;
const PAD = 4;

/** The values that are known: `[{at, value}]`, `at` counted from the start of the series. */
export const known = (series) =>
  series.map((value, at) => ({ at, value })).filter(({ value }) => typeof value === "number" && Number.isFinite(value));

/**
 * From where to where the axis goes: `[low, high]`. Without `limits` it begins at 0 and ends at a round number,
 * so that a steady line looks steady. `binary`: round as bytes are counted.
 */
export function reach(values, limits = null, binary = false) {
  if (limits) return limits;
  const most = Math.max(...values, 0);
  if (most === 0) return [0, 1];
  if (binary) {
    const power = 2 ** Math.ceil(Math.log2(most));
    return [0, most <= power * 0.75 ? power * 0.75 : power];
  }
  const unit = 10 ** Math.floor(Math.log10(most));
  return [0, [1, 2, 2.5, 5, 10].map((step) => step * unit).find((round) => round >= most) ?? 10 * unit];
}

/**
 * A chart as a figure.
 * series : numbers, null where nothing is known. title : above it. said : what the drawing says, in words. now :
 * the newest value, in words. ends : what the axis' ends are called, `[low, high]`, from `(low, high)`.
 */
export function chart({ series, title, said, now, ends, limits = null, binary = false }) {
  const points = known(series);
  const [low, high] = reach(points.map(({ value }) => value), limits, binary);
  const [lowest, highest] = ends(low, high);
  const axis = element(
    "div",
    { class: "chart-axis", "aria-hidden": "true" },
    element("span", { text: points.length ? highest : "" }),
    element("span", { text: points.length ? lowest : "" }),
  );
  return element(
    "figure",
    { class: "chart" },
    element("figcaption", {}, element("span", { class: "chart-title", text: title }), element("span", { class: "chart-now", text: now })),
    element("div", { class: "chart-frame" }, drawing(points, series.length, low, high, said), axis),
  );
}

function drawing(points, length, low, high, said) {
  const x = (at) => PAD + (length > 1 ? at / (length - 1) : 1) * (WIDTH - 2 * PAD);
  const y = (value) => HEIGHT - PAD - ((value - low) / (high - low || 1)) * (HEIGHT - 2 * PAD);
  const place = ({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`;
  const size = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" };
  const made = drawn("svg", { ...size, role: "img", "aria-label": said });
  for (const share of [0, 0.5, 1]) {
    const at = PAD + share * (HEIGHT - 2 * PAD);
    made.append(drawn("line", { class: "grid", x1: 0, x2: WIDTH, y1: at, y2: at }));
  }
  // Between values with nothing known between them only a faint line: nothing was measured there.
  if (points.length > 1) made.append(drawn("polyline", { class: "between", points: points.map(place).join(" ") }));
  for (const run of runs(points)) {
    // A value alone is a line of no length, which round ends make a dot.
    const shown = run.length > 1 ? run : [run[0], run[0]];
    made.append(drawn("polyline", { class: "line", points: shown.map(place).join(" ") }));
  }
  return made;
}

function runs(points) {
  const found = [];
  for (const point of points) {
    if (found.length && point.at === found.at(-1).at(-1).at + 1) found.at(-1).push(point);
    else found.push([point]);
  }
  return found;
}
