"""What does it cost to keep a context? Saving, loading in a fresh process, appending, sharing a beginning,
asking at once, and decoding when the context is three times what memory may hold.

Everything is measured on gemma3-270m with technical English: once in this process, and what must be fresh in
processes of its own. The last part needs a system where control groups can be made (root); it is left out
elsewhere.

Run: python -m benchmarks.contexts.keeping [--tokens 32000] [--dtype bf16]
Takes eight minutes on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.common import argument_parser, command, load, show, write
from sakuin import Context, Library, RetrievalConfig
from sakuin.documents import Document
from sakuin.evaluate import technical_english
from sakuin.snapshot import manifest as manifests

MODEL = "gemma3-270m"
QUESTION = "What does the import statement do?"
ANSWER = 24
STEPS = 64
CHILD = """
import json, sys
from time import perf_counter
from pathlib import Path
import sakuin
folder, dtype, group, offload, steps = sys.argv[1:]
model, tokenizer = sakuin.load({model!r}, dtype=dtype, backend="transformers")
if group:
    Path(group, "cgroup.procs").write_text(str(__import__("os").getpid()))
start = perf_counter()
config = None
if offload:
    from sakuin.snapshot import manifest
    held = manifest.read(Path(folder, "manifest.json")).config
    config = held.with_changes(offload=offload)
context = sakuin.Context.load(folder, model, tokenizer, config)
loaded = perf_counter() - start
context.ask({question!r}, max_new_tokens=1)
first = perf_counter() - start
context.ask({question!r}, max_new_tokens=int(steps))  # warm
answer = context.ask({question!r}, max_new_tokens=int(steps))
print(json.dumps({{"load_s": loaded, "first_token_s": first, "text": answer.text,
                  "new_tokens": answer.new_tokens,
                  "decode_ms": answer.decode_ms_per_token, "reused": answer.reused_tokens,
                  "kv_bytes": context.kv_bytes()}}))
"""


def child(folder: Path, dtype: str, steps: int, group: str = "", offload: str = "") -> dict[str, Any]:
    """Load the snapshot in a fresh process and ask it."""
    script = CHILD.format(model=MODEL, question=QUESTION)
    run = subprocess.run(
        [sys.executable, "-P", "-c", script, str(folder), dtype, group, offload, str(steps)],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def forget(folder: Path) -> None:
    """Have the system drop what it holds of a snapshot's files, as after a restart: what a process then reads
    comes from the disk, and counts as its own."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sizes(folder: Path, context: Context) -> dict[str, Any]:
    """Bytes on disk, windows left out, against keys and values of the full-attention layers in bf16."""
    parts = manifests.read(folder / "manifest.json").parts
    row = context.cache.retrieval_layers[0].rows[0]
    plain = 2 * 2 * row.n_kv_heads * row.head_dim * context.tokens * len(context.cache.retrieval_layers)
    without = sum(part.size for part in parts if part.kind != "window")
    return {
        "bytes": sum(part.size for part in parts),
        "without_windows": without,
        "bf16_kv": plain,
        "share": without / plain,
    }


def kept(model: Any, tokenizer: Any, text: str, dtype: str, folder: Path) -> dict[str, Any]:
    """Prefill, save, load in a fresh process."""
    start = perf_counter()
    context = Context.from_text(model, tokenizer, text)
    prefill = perf_counter() - start
    before = context.ask(QUESTION, max_new_tokens=STEPS)
    start = perf_counter()
    context.save(folder / "plain")
    save = perf_counter() - start
    forget(folder / "plain")
    fresh = child(folder / "plain", dtype, STEPS)
    int8 = Context.from_text(model, tokenizer, text, RetrievalConfig(kv_dtype="int8"))
    int8.save(folder / "int8")
    return {
        "tokens": context.tokens,
        "prefill_s": prefill,
        "save_s": save,
        "load_s": fresh["load_s"],
        "load_and_first_token_s": fresh["first_token_s"],
        "times_faster": prefill / fresh["first_token_s"],
        "same_answer": fresh["text"] == before.text,
        "reused_tokens": fresh["reused"],
        "size": sizes(folder / "plain", context),
        "size_int8": sizes(folder / "int8", int8),
    }


def appended(model: Any, tokenizer: Any, text: str, folder: Path) -> dict[str, Any]:
    """1K tokens more after 16K, against reading 1K tokens by themselves."""
    words = text.split(" ")
    base, more = " ".join(words[:10500]), " " + " ".join(words[10500:11500])
    context = Context.from_text(model, tokenizer, base)
    context.save(folder / "grown")
    files = {path.name: path.stat().st_mtime_ns for path in (folder / "grown" / "parts").iterdir()}
    loaded = Context.load(folder / "grown", model, tokenizer)
    start = perf_counter()
    loaded.append(more)
    append = perf_counter() - start
    loaded.save(folder / "grown")
    save = perf_counter() - start - append
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "grown" / "parts").iterdir()}
    start = perf_counter()
    alone = Context.from_text(model, tokenizer, more)
    return {
        "tokens": context.tokens,
        "appended": loaded.tokens - context.tokens,
        "append_s": append,
        "save_s": save,
        "alone_s": perf_counter() - start,
        "alone_tokens": alone.tokens,
        "rewritten_files": sum(after[name] != files[name] for name in files.keys() & after.keys()),
    }


def shared(model: Any, tokenizer: Any, text: str, folder: Path) -> dict[str, Any]:
    """Two contexts with the same first 12K tokens, then 2K each of their own."""
    words = text.split(" ")
    common = " ".join(words[:8700])
    library = Library(folder / "library")
    config = RetrievalConfig(segment=4096)
    seconds, found, size = [], [], []
    for name, more in (("first", words[9000:10300]), ("second", words[10300:11600])):
        start = perf_counter()
        found.append(
            library.add(name, [Document(name, common + " " + " ".join(more))], model, tokenizer, config)
        )
        seconds.append(perf_counter() - start)
        size.append(sum(library.folder.parts.all().values()))
    return {
        "tokens": [context.tokens for context in found],
        "reused": found[1].reused_tokens,
        "add_s": seconds,
        "bytes_on_disk": size,
    }


def at_once(context: Context) -> dict[str, Any]:
    """16 questions of 4 forks, one at a time and at once."""
    questions = [f"What is said about {word}?" for word in technical_english().split()[100:116]]
    start = perf_counter()
    alone = [context.ask(question, ANSWER).text for question in questions]
    one = perf_counter() - start
    forks = [context.fork() for _ in range(4)]
    start = perf_counter()
    with ThreadPoolExecutor(16) as pool:
        both = list(pool.map(lambda i: forks[i % 4].ask(questions[i], ANSWER).text, range(16)))
    return {"one_at_a_time_s": one, "at_once_s": perf_counter() - start, "identical": both == alone}


def short_of_memory(folder: Path, dtype: str, size: int) -> dict[str, Any] | None:
    """Decode in memory, and from disk where the process may hold a third of the context beside its model."""
    own = Path("/sys/fs/cgroup/memory")
    limit, usage = "memory.limit_in_bytes", "memory.max_usage_in_bytes"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if ":memory:" in line:
            own = own / line.split(":")[2].lstrip("/")
    group = own / f"sakuin-benchmark-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        # What the process held before it joined (torch, the model) is not counted in the group.
        (group / limit).write_text(str(size // 3))
        inside = child(folder, dtype, STEPS)
        forget(folder)
        outside = child(folder, dtype, STEPS, str(group), "disk")
        return {
            "context_bytes": size,
            "limit_bytes": size // 3,
            "used_at_most": int((group / usage).read_text()),
            "memory_ms": inside["decode_ms"],
            "disk_ms": outside["decode_ms"],
            "slower": outside["decode_ms"] / inside["decode_ms"],
            "same_answer": inside["text"] == outside["text"],
            "kv_bytes": outside["kv_bytes"],
        }
    finally:
        group.rmdir()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=32000)
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    model, tokenizer = load(MODEL, arguments.dtype)
    dtype = {"torch.bfloat16": "bf16", "torch.float32": "fp32"}[str(model.dtype)]
    text = technical_english()
    ends = tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
    whole = text[: ends[arguments.tokens - 200][1]]
    with tempfile.TemporaryDirectory(dir=Path.home()) as place:
        folder = Path(place)
        found: dict[str, Any] = {"dtype": dtype, "kept": kept(model, tokenizer, whole, dtype, folder)}
        context = Context.load(folder / "plain", model, tokenizer)
        found["at_once"] = at_once(context)
        size = found["kept"]["size"]["without_windows"]
        found["short_of_memory"] = short_of_memory(folder / "plain", dtype, size)
        found["appended"] = appended(model, tokenizer, whole, folder)
        found["shared"] = shared(model, tokenizer, whole, folder)
    rows = []
    for part, figures in found.items():
        for name, value in figures.items() if isinstance(figures, dict) else []:
            rows.append((part, name, f"{value:.4g}" if isinstance(value, float) else str(value)))
    show(f"Contexts that stay, {MODEL}, {dtype}", ("what", "figure", "value"), rows)
    write("contexts", {"command": command(), **found})


if __name__ == "__main__":
    main()
