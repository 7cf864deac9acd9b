// The server counts characters as Python does, by code points; a browser's string counts UTF-16 units, of which
// an emoji takes two.

const STEP = 1024;
const ASTRAL = /[\u{10000}-\u{10ffff}]/u;

/** Where in `text` the character at a code point is: `at(n)` in UTF-16 units, for rising or any n. */
export class Offsets {
  #text;
  #stops = null; // UTF-16 offsets of each STEP-th code point; null where both counts are one

  constructor(text) {
    this.#text = text;
    if (!ASTRAL.test(text)) return;
    this.#stops = [];
    let points = 0;
    for (let at = 0; at < text.length; at += width(text, at), points += 1) {
      if (points % STEP === 0) this.#stops.push(at);
    }
  }

  at(point) {
    if (point <= 0) return 0;
    if (this.#stops === null) return Math.min(point, this.#text.length);
    const stop = Math.min(Math.floor(point / STEP), this.#stops.length - 1);
    let at = this.#stops[stop] ?? 0;
    for (let left = point - stop * STEP; left > 0 && at < this.#text.length; left -= 1) at += width(this.#text, at);
    return at;
  }
}

function width(text, at) {
  return text.codePointAt(at) > 0xffff ? 2 : 1;
}
