// The page of the API: reads openapi.json, which lies beside it, and shows what it says. Text only, never markup.

const api = new URL(".", document.baseURI);
const $ = (id) => document.getElementById(id);

/** An element of a kind and class that holds texts and elements. */
function made(tag, kind, ...holds) {
  const one = document.createElement(tag);
  if (kind) one.className = kind;
  one.append(...holds.filter((each) => each !== null && each !== undefined));
  return one;
}

/** Words beside others: what is read aloud or copied has a space between them. */
const beside = (kind, text) => [" ", made("span", kind, text)];

// -- schemas --------------------------------------------------------------------------------------------------

let spec = {};

/** What a reference leads to. */
function resolved(schema) {
  let found = schema ?? {};
  for (let steps = 0; found.$ref && steps < 20; steps += 1) {
    const path = found.$ref.slice(2).split("/").map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
    found = path.reduce((at, part) => at?.[part], spec) ?? {};
  }
  return found;
}

const choices = (schema) => schema.anyOf ?? schema.oneOf ?? null;
const refName = (schema) => schema.$ref?.split("/").pop();
const isNull = (schema) => schema.type === "null";

/** What a value may be, in a few words. */
function typeOf(schema) {
  if (schema.$ref) {
    const found = resolved(schema);
    return found.enum ? typeOf(found) : refName(schema);
  }
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const many = choices(schema);
  if (many) return [...new Set(many.map(typeOf))].join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? typeOf(schema.items) : "anything"}`;
  if (schema.type === "object" && schema.additionalProperties?.type) {
    return `object of ${typeOf(schema.additionalProperties)}`;
  }
  return schema.format === "binary" ? "file" : schema.type ?? "anything";
}

/** From least to most, of something. */
function range(least, most, what) {
  const [from, to] = [least, most].map((value) => value?.toLocaleString("en"));
  const words = what ? ` ${what}` : "";
  if (from !== undefined && to !== undefined) return `${from} to ${to}${words}`;
  if (from !== undefined) return `at least ${from}${words}`;
  return to === undefined ? null : `at most ${to}${words}`;
}

/** The limits of a value. Those of the one choice that is not null are its own. */
function limitsOf(schema) {
  const real = choices(schema)?.filter((each) => !isNull(each));
  if (real) return real.length === 1 ? limitsOf(real[0]) : real.map(limited).filter(Boolean).join("; ");
  if (schema.$ref) return "";
  const said = [
    range(schema.minimum, schema.maximum),
    schema.exclusiveMinimum === undefined ? null : `more than ${schema.exclusiveMinimum.toLocaleString("en")}`,
    schema.exclusiveMaximum === undefined ? null : `less than ${schema.exclusiveMaximum.toLocaleString("en")}`,
    range(schema.minLength, schema.maxLength, "characters"),
    range(schema.minItems, schema.maxItems, "entries"),
    range(schema.minProperties, schema.maxProperties, "entries"),
    schema.pattern ? `like ${schema.pattern}` : null,
    schema.items && !schema.items.$ref ? ofEach(schema.items) : null,
  ];
  return said.filter(Boolean).join(", ");
}

function limited(schema) {
  const limits = limitsOf(schema);
  return limits ? `${typeOf(schema)}: ${limits}` : "";
}

function ofEach(schema) {
  const limits = limitsOf(schema);
  return limits ? `each ${limits}` : null;
}

/** The objects with fields that a value may be or hold, by what they are called. */
function objectsIn(schema, found = new Map(), depth = 0) {
  const real = resolved(schema);
  if (depth > 8) return found;
  if (real.properties) found.set(refName(schema) ?? real.title ?? "object", real);
  for (const each of choices(real) ?? []) objectsIn(each, found, depth + 1);
  if (real.items) objectsIn(real.items, found, depth + 1);
  if (real.additionalProperties?.$ref) objectsIn(real.additionalProperties, found, depth + 1);
  return found;
}

/** A description's own words, and what it says of fields: "name, other : what they are." */
function parted(schema) {
  const text = schema.description ?? "";
  const marks = [...text.matchAll(/(?:^|\s)((?:\w+, )*\w+) : /g)].filter((mark) =>
    mark[1].split(", ").every((name) => schema.properties && name in schema.properties),
  );
  const about = {};
  marks.forEach((mark, at) => {
    const said = text.slice(mark.index + mark[0].length, marks[at + 1]?.index).trim();
    for (const name of mark[1].split(", ")) about[name] = said;
  });
  return { own: text.slice(0, marks[0]?.index).trim(), about };
}

// -- fields ---------------------------------------------------------------------------------------------------

/** Paragraphs of a description; what stands in backquotes is code. */
function prose(text) {
  return (text ?? "").split(/\n\s*\n/).filter((part) => part.trim()).map((part) =>
    made("p", "", ...part.trim().split("`").map((piece, at) => (at % 2 ? made("code", "", piece) : piece))),
  );
}

/** One field; what it holds is made when it is opened, since some hold themselves. */
function field(name, schema, needed, about) {
  const preset = schema.default === undefined || schema.default === null ? null : JSON.stringify(schema.default);
  const limits = [limitsOf(schema), preset && `default ${preset}`].filter(Boolean).join("; ");
  const one = made(
    "li",
    "",
    made("code", "name", name),
    ...beside("type", typeOf(schema)),
    ...(needed ? beside("needed", "required") : []),
    ...(limits ? beside("limits", limits) : []),
    ...prose(schema.description ?? choices(schema)?.find((each) => each.description)?.description ?? about),
  );
  for (const [title, object] of objectsIn(schema)) one.append(expandable(`Fields of ${title}`, () => fields(object)));
  return one;
}

function fields(schema) {
  const { own, about } = parted(schema);
  const names = Object.keys(schema.properties ?? {});
  const needed = new Set(schema.required ?? []);
  const sorted = [...names.filter((name) => needed.has(name)), ...names.filter((name) => !needed.has(name))];
  const list = sorted.map((name) => field(name, schema.properties[name], needed.has(name), about[name]));
  return [...prose(own), made("ul", "fields", ...list)];
}

function expandable(title, fill) {
  const one = made("details", "more", made("summary", "", title));
  one.addEventListener("toggle", () => one.childElementCount === 1 && one.append(...fill()), { once: true });
  return one;
}

// -- examples -------------------------------------------------------------------------------------------------

const EXAMPLES = {
  model: "MODEL",
  name: "contract",
  id: "contract",
  text: "The contract with Halden ends on 14 March 2031.",
  messages: [{ role: "user", content: "When does the contract end?" }],
  input: "When does the contract end?",
  prompt: "The contract ends on",
  content: "The contract ends on 14 March 2031.",
  max_tokens: 32,
  max_output_tokens: 32,
  pinned: true,
};
const WORTH_SHOWING = ["name", "max_tokens", "max_output_tokens", "messages", "pinned"];

function exampleOf(schema) {
  const names = Object.keys(schema.properties ?? {});
  const shown = names.filter((name) => schema.required?.includes(name) || WORTH_SHOWING.includes(name));
  return Object.fromEntries(shown.map((name) => [name, EXAMPLES[name] ?? name]));
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(method, path, parameters, kind, schema) {
  const at = path.replace(/\{(\w+)\}/g, (_, name) => (path.includes("/models/") ? "MODEL" : EXAMPLES[name] ?? name));
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${quoted(api.href + at.slice(1))}`];
  if (!["/health", "/ready"].includes(path)) lines.push('-H "Authorization: Bearer $KEY"');
  if (kind === "application/json") {
    lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(exampleOf(schema)))}`);
  } else if (kind) {
    if (schema.properties?.name) lines.push("-F name=contract");
    lines.push("-F files=@contract.pdf");
  }
  return made("pre", "", made("code", "", lines.join(" \\\n  ")));
}

// -- operations -----------------------------------------------------------------------------------------------

function bodies(operation) {
  return Object.entries(operation.requestBody?.content ?? {}).map(([kind, said]) => [kind, resolved(said.schema)]);
}

/** The statuses: an error has the one form that all have. */
function statuses(operation) {
  const list = Object.entries(operation.responses).sort(([a], [b]) => a.localeCompare(b)).map(([status, said]) => {
    const one = made("li", "", made("code", "name", status), ...beside("type", said.description));
    for (const [kind, { schema }] of Object.entries(said.content ?? {})) {
      if (status >= "400") continue;
      one.append(...beside("limits", kind));
      for (const [title, object] of objectsIn(schema)) one.append(expandable(`Fields of ${title}`, () => fields(object)));
    }
    return one;
  });
  const error = Object.values(operation.responses).flatMap((said) => Object.values(said.content ?? {}))
    .find(({ schema }) => refName(schema ?? {}) === "ErrorAnswer");
  const all = made("ul", "fields", ...list);
  return error ? [all, expandable("Fields of an error", () => fields(resolved(error.schema)))] : [all];
}

function inside(method, path, operation) {
  const parts = [...prose(operation.description)];
  const heading = (text) => parts.push(made("h4", "", text));
  const given = operation.parameters ?? [];
  if (given.length) {
    heading("Parameters");
    const list = given.map((one) =>
      field(one.name, { description: one.description, ...one.schema }, one.required, `In the ${one.in}.`),
    );
    parts.push(made("ul", "fields", ...list));
  }
  for (const [kind, schema] of bodies(operation)) {
    heading(`Body, ${kind}`);
    parts.push(...fields(schema));
  }
  heading("Answers");
  parts.push(...statuses(operation));
  heading("With curl");
  const kinds = bodies(operation);
  for (const [kind, schema] of kinds.length ? kinds : [[null, {}]]) parts.push(curl(method, path, given, kind, schema));
  for (const block of parts) if (block.tagName === "PRE") block.tabIndex = 0; // it may have to be scrolled
  return made("div", "inside", ...parts);
}

/** All that is said of an operation, its schemas followed, for the search. */
function words(path, method, operation) {
  const seen = new Set();
  const said = [method, path];
  const walk = (value) => {
    if (typeof value === "string" && !value.startsWith("#/")) said.push(value);
    if (value === null || typeof value !== "object") return;
    for (const [name, each] of Object.entries(value)) {
      if (name === "$ref" && !seen.has(each)) {
        seen.add(each);
        walk(resolved(value));
      } else if (name !== "responses") {
        said.push(name);
        walk(each);
      }
    }
  };
  walk(operation);
  return said.join(" ").toLowerCase();
}

function operationOf(path, method, operation) {
  const id = `${method}${path}`.replaceAll(/[^a-z0-9]+/gi, "-").replace(/-$/, "");
  const brief = (operation.description ?? operation.summary ?? "").split(/(?<=[.:])\s/)[0].replaceAll("`", "");
  const summary = made(
    "summary",
    "",
    made("h3", "", made("span", "method", method.toUpperCase()), " ", made("code", "", path)),
    " ",
    made("span", "brief", brief),
  );
  const one = made("details", "operation", summary);
  one.id = id;
  one.addEventListener("toggle", () => one.childElementCount === 1 && one.append(inside(method, path, operation)), {
    once: true,
  });
  const link = made("a", "", `${method.toUpperCase()} ${path}`);
  link.href = `#${id}`;
  link.addEventListener("click", () => {
    one.open = true;
    summary.focus({ preventScroll: true });
  });
  return { one, entry: made("li", "", link), words: words(path, method, operation) };
}

function show() {
  $("version").textContent = spec.info.version;
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationOf(path, method, operation));
    }
  }
  const shown = [...groups].map(([tag, operations]) => {
    const title = tag[0].toUpperCase() + tag.slice(1);
    const section = made("section", "", made("h2", "", title), ...operations.map(({ one }) => one));
    const list = made("div", "", made("h2", "", title), made("ul", "", ...operations.map(({ entry }) => entry)));
    $("operations").append(section);
    $("contents").append(list);
    return { section, list, operations };
  });
  searchable(shown);
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named?.classList.contains("operation")) {
    named.open = true;
    named.scrollIntoView();
  }
}

function searchable(groups) {
  const box = $("search");
  const search = () => {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { section, list, operations } of groups) {
      let any = false;
      for (const { one, entry, words: said } of operations) {
        const is = wanted.every((word) => said.includes(word));
        one.hidden = entry.hidden = !is;
        any ||= is;
        count += is;
      }
      section.hidden = list.hidden = !any;
    }
    $("found").textContent = wanted.length ? `${count || "nothing"} found` : "";
  };
  box.addEventListener("input", search);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      box.value = "";
      search();
    } else if (event.key === "Enter") {
      event.preventDefault(); // else it would press what is focused then
      const first = document.querySelector(".operation:not([hidden])");
      if (first) {
        first.open = true;
        first.querySelector("summary").focus();
      }
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== box && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      box.focus();
    }
  });
}

try {
  const answer = await fetch(new URL("openapi.json", api));
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  spec = await answer.json();
  show();
} catch (error) {
  $("problem").textContent = `The description of the API cannot be shown (${error.message}); load the page again.`;
  $("problem").hidden = false;
}
