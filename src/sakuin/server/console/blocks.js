// A long text as blocks that a browser lays out only where they are seen. No character is added or left out, so
// that offsets count the same in the page as in the text.

const WANTED = 3000; // UTF-16 units of a block
const LONGEST = 12000; // of a line that is kept in one block
const HEADING_FROM = 800; // units after which a heading begins a block

/**
 * Where blocks begin and end: at a page's start always, else after a line.
 * marks : `{start, page, heading}` with `start` in UTF-16 units.
 * Returns `[{start, end, page}]`; `page` is set where a page begins.
 */
export function cut(text, marks = []) {
  const found = [];
  let at = 0;
  let page = null;
  let starts = null;
  const upTo = (end) => {
    while (at < end) {
      const stop = lineEnd(text, at, end);
      found.push({ start: at, end: stop, page: starts });
      starts = null;
      at = stop;
    }
  };
  for (const mark of marks) {
    const turned = mark.page !== null && mark.page !== undefined && mark.page !== page;
    if (!turned && mark.start - at < HEADING_FROM) continue;
    upTo(mark.start);
    if (!turned) continue;
    page = mark.page;
    starts = page;
  }
  upTo(text.length);
  if (starts !== null) found.push({ start: at, end: at, page: starts });
  return found;
}

function lineEnd(text, start, end) {
  if (end - start <= WANTED * 1.5) return end;
  const line = text.indexOf("\n", start + WANTED);
  if (line >= 0 && line < Math.min(start + LONGEST, end)) return line + 1;
  if (end - start <= LONGEST) return end;
  const blank = text.lastIndexOf(" ", start + WANTED);
  const stop = blank > start ? blank + 1 : start + WANTED;
  const inPair = /[\ud800-\udbff]/.test(text[stop - 1]) && /[\udc00-\udfff]/.test(text[stop]);
  return inPair ? stop + 1 : stop;
}

/** As it is shown: line ends of every system as line breaks, each of as many characters as before. */
export const shown = (text) => text.replace(/\r\n/g, " \n").replace(/\r/g, "\n");

/** Lines that a block takes, by estimate, where `columns` narrow characters have room in one. */
export function lines(text, columns) {
  let count = 0;
  for (const line of text.split("\n")) {
    const wide = line.match(/[\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\uff00-\uff60]/g)?.length ?? 0;
    count += Math.max(1, Math.ceil((line.length + wide) / columns));
  }
  return count;
}

/**
 * The pieces of a block that lie in passages and that do not.
 * passages : `[{start, end}]` in units of the text, the weightiest first, which are before the others where they
 * overlap. Returns `[{start, end, passage}]` in order; `passage` is an index or null.
 */
export function pieces(block, passages) {
  const inside = passages
    .map(({ start, end }, passage) => ({ start: Math.max(start, block.start), end: Math.min(end, block.end), passage }))
    .filter(({ start, end }) => start < end);
  const edges = new Set([block.start, block.end]);
  for (const { start, end } of inside) edges.add(start).add(end);
  const sorted = [...edges].sort((one, other) => one - other);
  const found = [];
  for (let at = 0; at + 1 < sorted.length; at += 1) {
    const [start, end] = [sorted[at], sorted[at + 1]];
    const passage = inside.find((one) => one.start <= start && end <= one.end)?.passage ?? null;
    const last = found.at(-1);
    if (last && last.passage === passage) last.end = end;
    else found.push({ start, end, passage });
  }
  return found;
}
