// A question to the server, and its answer as it comes.

import { Refused, follow } from "./api.js";

const PREFILL = /^prefill (\d+)\/(\d+)/;

/**
 * Ask. Yields `{prefill: {done, total}}` while the prompt is read, `{text}` for each piece of the answer, and
 * `{end: {finish, evidence, footnotes, support, supported, tokens}}`. Raises `Refused`; `AbortError` after `signal`.
 *
 * With `footnotes` in the request the answer would come in one piece; where they stand is told at its end:
 * `{at, mark}`, `at` in code points of the answer.
 * earlier : turns before this question, `{role, content}`.
 */
export async function* ask({ model, context, question, earlier = [], longest, signal }) {
  const json = {
    model,
    context,
    messages: [...earlier, { role: "user", content: question }],
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: longest,
    temperature: 0,
    evidence: true,
  };
  const end = { finish: null, evidence: [], footnotes: [], support: null, supported: null, tokens: null };
  let done = false;
  for await (const event of follow("v1/chat/completions", { method: "POST", json, signal })) {
    if (event.comment !== undefined) {
      const [, read, total] = PREFILL.exec(event.comment) ?? [];
      if (total) yield { prefill: { done: Number(read), total: Number(total) } };
      continue;
    }
    if (event.data === "[DONE]") {
      done = true;
      break;
    }
    const chunk = parsed(event.data);
    if (chunk.error) throw new Refused(chunk.error.status ?? 400, chunk.error.message, chunk.error.code, chunk.error);
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    note(end, chunk, choice);
  }
  if (!done) throw new Refused(0, "", "broken");
  yield { end };
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Refused(0, "", "broken");
  }
}

function note(end, chunk, choice) {
  if (choice?.finish_reason) end.finish = choice.finish_reason;
  if (Array.isArray(chunk.evidence)) end.evidence = chunk.evidence;
  if (Array.isArray(chunk.footnotes)) end.footnotes = chunk.footnotes;
  if (chunk.support !== undefined) end.support = chunk.support;
  if (chunk.supported !== undefined) end.supported = chunk.supported;
  if (chunk.usage) end.tokens = chunk.usage.completion_tokens ?? null;
}
