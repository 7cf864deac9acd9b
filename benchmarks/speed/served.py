"""What clients of a server see, over HTTP: questions of stored contexts, many at once, beside a long prompt
of somebody else, and the same of llama.cpp's own server.

Four parts, each in turns in one run. `first`: from a question on a stored context of 8K to its first token,
beside the reading of the question and 1.5 steps of decoding. `clients`: 16 clients ask 4 stored contexts of
8K, beside the same questions one after another. `beside`: four clients whose answers go on while a fifth
sends a prompt of 30K, their time for a token before and meanwhile. `peer`: 8 clients ask a document of 16K,
once stored here and once sent to llama.cpp's server (xllamacpp), which reads it once, saves the slot and
restores it for each client, so that its answers find it read.

Run: python -m benchmarks.speed.served [--parts first clients beside peer]
Takes twenty minutes on two cores, and needs a quiet machine.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import httpx
import torch

from benchmarks.answers.evidence import text
from benchmarks.common import argument_parser, command, console, show, write
from sakuin.backends import catalogue

QUESTIONS = ("What is this text about?", "Who wrote it, and when?", "What happens first?", "What is missing?")
CHARACTERS = 4.3
"""Of these texts, a token."""
PARTS = ("first", "clients", "beside", "peer")


@dataclass(frozen=True)
class Answer:
    """seconds : from the request to its end; first : to its first piece. at : when each piece came. cached,
    tokens : of the prompt, and of the answer. text : of it. prompt : its tokens."""

    seconds: float
    first: float
    at: list[float]
    cached: int
    tokens: int
    text: str
    prompt: int


@contextmanager
def served(code: Sequence[str]) -> Iterator[str]:
    """A server in a process of its own; its address, which it prints."""
    process = subprocess.Popen(
        [sys.executable, *code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "http://" in line:
                yield f"http://{line.split('http://')[1].split()[0]}"
                return
        raise RuntimeError("the server has not begun")
    finally:
        process.terminate()
        process.wait(60)


def sakuin_server(model: str, library: str, window: int | None = None) -> list[str]:
    """How sakuin's is begun."""
    more = [] if window is None else ["--window", str(window)]
    return ["-m", "sakuin", "serve", "--model", model, "--library", library, "--port", "0", *more]


_PEER = """
import sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 0
p.warmup, p.n_predict, p.slot_save_path = True, -1, sys.argv[6] + "/"
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[4])
if sys.argv[5] != "1":
    p.rope_scaling_type = xllamacpp.llama_rope_scaling_type.LLAMA_ROPE_SCALING_TYPE_YARN
    p.yarn_orig_ctx = 8192
    p.rope_freq_scale = 1 / float(sys.argv[5])
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
time.sleep(1e9)
"""


async def ask(client: httpx.AsyncClient, body: dict[str, Any], at: list[float] | None = None) -> Answer:
    """A question, its answer streamed. at : is given when each piece came."""
    at = [] if at is None else at
    start, said, usage = time.perf_counter(), "", dict[str, Any]()
    more = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    async with client.stream("POST", "/v1/chat/completions", json=body | more) as response:
        if response.status_code != 200:
            raise RuntimeError((await response.aread()).decode()[:300])
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            told = json.loads(line[6:])
            if "error" in told:
                raise RuntimeError(str(told["error"]))
            usage = told.get("usage") or usage
            piece = "".join(one["delta"].get("content") or "" for one in told["choices"])
            if piece:
                at.append(time.perf_counter())
                said += piece
    end = time.perf_counter()
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    many = usage["completion_tokens"], said, usage["prompt_tokens"]
    return Answer(end - start, at[0] - start, at, cached, *many)


def client_of(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, timeout=3600, limits=httpx.Limits(max_connections=64))


async def store(client: httpx.AsyncClient, name: str, words: str) -> int:
    """Keep a text as a context; its tokens."""
    answer = await client.post("/v1/contexts", json={"name": name, "text": words, "wait": True})
    answer.raise_for_status()
    return int(answer.json()["tokens"])


def rate(answers: Sequence[Answer], seconds: float) -> float:
    return sum(answer.tokens for answer in answers) / seconds


async def first(address: str, tokens: int = 40, turns: int = 9) -> dict[str, Any]:
    """To the first token of a question on a stored context."""
    async with client_of(address) as client:
        n = await store(client, "first", text(3, int(CHARACTERS * 7300)).having)
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        body = {"model": f"{model}@first", "max_tokens": tokens}
        firsts, steps, alone = [], [], []
        for i in range(turns):
            message = [{"role": "user", "content": f"{QUESTIONS[i % 4]} ({i})"}]
            answer = await ask(client, {**body, "messages": message, "end_loops": False})
            firsts.append(answer.first)
            steps.append((answer.at[-1] - answer.at[0]) / max(len(answer.at) - 1, 1))
            # The question's own reading: all but its last token, over the same context.
            counted = await client.post(
                "/v1/count_tokens", json={"model": body["model"], "messages": message}
            )
            alone.append(counted.json()["input_tokens"] - counted.json()["cached_tokens"])
        return {
            "tokens": n,
            "first_ms": 1e3 * median(firsts),
            "step_ms": 1e3 * median(steps),
            "question_tokens": median(alone),
            "steps": median(firsts) / median(steps),
        }


async def clients(address: str, many: int = 16, documents: int = 4, tokens: int = 32, turns: int = 3) -> Any:
    """Many clients at once, beside one after another."""
    async with client_of(address) as client:
        for i in range(documents):
            await store(client, f"clients-{i}", text(6 * i + 2, int(CHARACTERS * 7300)).having)
        model = (await client.get("/v1/models")).json()["data"][0]["id"]

        def one(i: int) -> Any:
            message = [{"role": "user", "content": QUESTIONS[i // documents % 4]}]
            named = f"{model}@clients-{i % documents}"
            return ask(
                client, {"model": named, "messages": message, "max_tokens": tokens, "end_loops": False}
            )

        await asyncio.gather(*(one(i) for i in range(documents)))
        ratios, slowest, rates, same = [], [], {"alone": [], "together": []}, []
        for _ in range(turns):
            start = time.perf_counter()
            alone = [await one(i) for i in range(many)]
            rates["alone"].append(rate(alone, time.perf_counter() - start))
            start = time.perf_counter()
            together = await asyncio.gather(*(one(i) for i in range(many)))
            rates["together"].append(rate(together, time.perf_counter() - start))
            ratios.append(rates["together"][-1] / rates["alone"][-1])
            times = [answer.seconds / answer.tokens for answer in together]
            slowest.append(max(times) / median(times))
            same.append(sum(a.text == b.text for a, b in zip(alone, together, strict=True)) / many)
        return {
            "clients": many,
            "contexts": documents,
            "alone": median(rates["alone"]),
            "together": median(rates["together"]),
            "faster": median(ratios),
            "faster_least": min(ratios),
            "faster_most": max(ratios),
            "slowest": max(slowest),
            "same": median(same),
        }


async def beside(address: str, long: int = 29_000, chatting: int = 4) -> dict[str, Any]:
    """The time for a token of those whose answers go on while somebody else's prompt is read."""
    async with client_of(address) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        pieces: list[list[float]] = []  # of each answer

        def body(words: str, tokens: int) -> dict[str, Any]:
            message = [{"role": "user", "content": words}]
            return {"model": model, "messages": message, "max_tokens": tokens, "end_loops": False}

        async def talk(i: int) -> None:
            while True:
                pieces.append([])
                await ask(client, body(f"Tell a long story about number {i}.", 400), pieces[-1])

        talks = [asyncio.ensure_future(talk(i)) for i in range(chatting)]
        await asyncio.sleep(20)
        begun = time.perf_counter()
        words = text(5, int(CHARACTERS * long)).having
        answer = await ask(client, body(f"{words}\n\nWhat is this about?", 1))
        ended = time.perf_counter()
        for one in talks:
            one.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        before = gaps(pieces, begun - 10, begun)
        meanwhile = gaps(pieces, begun, ended)
        return {
            "tokens": answer.prompt,
            "prompt_s": answer.first,
            "before_ms": 1e3 * median(before),
            "meanwhile_ms": 1e3 * median(meanwhile),
            "rise": (sum(meanwhile) / len(meanwhile)) / (sum(before) / len(before)),
            "longest_ms": 1e3 * max(meanwhile),
        }


def gaps(pieces: Sequence[Sequence[float]], start: float, end: float) -> list[float]:
    """Seconds between the pieces of each answer within a time."""
    found = []
    for at in pieces:
        within = [moment for moment in at if start <= moment <= end]
        found += [b - a for a, b in pairwise(within)]
    return found


async def peer(
    address: str, words: str, name: str, turns: int, tokens: int = 48, many: int = 8
) -> dict[str, Any]:
    """8 clients who ask one document. name : of the stored context, or "" where the text is sent."""
    async with client_of(address) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        start = time.perf_counter()
        if name:
            stored = await store(client, name, words)
        else:
            stored = await _every_slot(client, model, words, many)
        read_s = time.perf_counter() - start

        def one(i: int) -> Any:
            question = QUESTIONS[i % 4]
            message = question if name else f"{words}\n\n{question}"
            body = {"model": f"{model}@{name}" if name else model, "max_tokens": tokens}
            more = {"end_loops": False} if name else {"id_slot": i, "cache_prompt": True}
            return ask(client, {**body, **more, "messages": [{"role": "user", "content": message}]})

        found = []
        for _ in range(turns + 1):
            start = time.perf_counter()
            answers = await asyncio.gather(*(one(i) for i in range(many)))
            seconds = time.perf_counter() - start
            found.append((rate(answers, seconds), median(answer.first for answer in answers)))
        rates, firsts = zip(*found[1:], strict=True)
        return {
            "tokens": stored,
            "read_s": read_s,
            "rate": median(rates),
            "rate_least": min(rates),
            "rate_most": max(rates),
            "first_s": median(firsts),
            "cached": median(answer.cached for answer in answers),
        }


async def _every_slot(client: httpx.AsyncClient, model: str, words: str, many: int) -> int:
    """Have llama.cpp's server read a text and keep it in every slot; the tokens that it holds."""
    message = [{"role": "user", "content": words}]
    body = {"model": model, "messages": message, "max_tokens": 1, "id_slot": 0, "cache_prompt": True}
    answer = await ask(client, body)
    for slot in range(many):
        do = "restore" if slot else "save"
        done = await client.post(f"/slots/{slot}?action={do}", json={"filename": "read"})
        done.raise_for_status()
    return answer.prompt


def compared(model: str, window: int, turns: int, threads: int) -> dict[str, Any]:
    """Both servers on one file, one after the other."""
    words = text(3, int(CHARACTERS * 14_000)).having
    file = catalogue.MODELS[model].path
    with tempfile.TemporaryDirectory() as library, served(sakuin_server(model, library, window)) as address:
        ours = asyncio.run(peer(address, words, "peer", turns))
    many, stretch = 8, window / 8192
    code = ["-c", _PEER, str(file), str(many * window), str(many), str(threads), str(stretch)]
    with tempfile.TemporaryDirectory() as slots, served([*code, slots]) as address:
        theirs = asyncio.run(peer(address, words, "", turns))
    return {
        "sakuin": ours,
        "llama.cpp": theirs,
        "faster": ours["rate"] / theirs["rate"],
        "sooner": theirs["first_s"] / ours["first_s"],
        "sooner_than_read": theirs["read_s"] / ours["first_s"],
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    if not catalogue.MODELS[chosen.model].is_here:
        catalogue.get(chosen.model, say=console.print)
    found: dict[str, Any] = {}
    parts: dict[str, tuple[int | None, Callable[[str], Any]]] = {
        "first": (None, first),
        "clients": (None, lambda address: clients(address, turns=chosen.turns)),
        "beside": (32_768, beside),
    }
    for name, (window, run) in parts.items():
        if name in chosen.parts:
            with (
                tempfile.TemporaryDirectory() as library,
                served(sakuin_server(chosen.model, library, window)) as address,
            ):
                found[name] = asyncio.run(run(address))
                show(name, list(found[name]), [list(found[name].values())])
    threads = torch.get_num_threads()
    if "peer" in chosen.parts:
        found["peer"] = compared(chosen.model, 17_408, chosen.turns, threads)
        columns = ("tokens", "read_s", "rate", "rate_least", "rate_most", "first_s", "cached")
        rows = [[who, *(found["peer"][who][one] for one in columns)] for who in ("sakuin", "llama.cpp")]
        show("peer", ("server", *columns), rows)
        console.print({name: found["peer"][name] for name in ("faster", "sooner", "sooner_than_read")})
    write("served", {"command": command(), "threads": threads, "model": chosen.model, "results": found})


if __name__ == "__main__":
    main()
