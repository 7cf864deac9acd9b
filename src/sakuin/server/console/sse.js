// Server-sent events out of a stream of bytes, wherever it is cut: inside a character, a line or an end of line.

/** Takes bytes and gives the events that have ended: `{name, data}`, or `{comment}` for a comment. */
export class Parser {
  #decoder = new TextDecoder();
  #line = "";
  #afterReturn = false; // the last character was CR, so that an LF ends no second line
  #name = "";
  #data = [];

  push(bytes) {
    return this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  #take(text) {
    const found = [];
    if (this.#afterReturn && text !== "") {
      if (text[0] === "\n") text = text.slice(1);
      this.#afterReturn = false;
    }
    const lines = text.split(/\r\n|\r|\n/);
    this.#afterReturn = text.endsWith("\r");
    for (const [at, part] of lines.entries()) {
      this.#line += part;
      if (at === lines.length - 1) break;
      const event = this.#ended(this.#line);
      if (event) found.push(event);
      this.#line = "";
    }
    return found;
  }

  #ended(line) {
    if (line === "") {
      const event = this.#data.length ? { name: this.#name || "message", data: this.#data.join("\n") } : null;
      this.#name = "";
      this.#data = [];
      return event;
    }
    if (line[0] === ":") return { comment: line.slice(1).trim() };
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
    return null;
  }
}

/** The events of a response, as they come. */
export async function* events(response) {
  const parser = new Parser();
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
