"""Ask a real model about a real long document, through retrieval attention and with full attention beside it.

The document is made here, from text that is on any machine where sakuin is: the licences that come with numpy
(its own, BSD-3-Clause, and those of the libraries in it, the GNU GPL among them), about 7,000 tokens, in
which one sentence is planted. The model is SmolLM2-135M-Instruct (Apache-2.0), fetched once.

Run: make demo, or python examples/demo.py [--depth 0.6]
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import files
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import sakuin
from sakuin.backends import catalogue
from sakuin.backends.open import choose, vocabulary_of
from sakuin.documents import Document
from sakuin.quantities import size_of

FACT = "The support contract with Halden ends on: 14 March 2031."
QUESTION = "When does the support contract with Halden end?"
TOKENS = 7000

console = Console(highlight=False, soft_wrap=True)


def document(tokenizer, depth: float) -> Document:
    """About 7,000 tokens of licences with the fact planted at `depth` (0 is the start, 1 the end)."""
    licences = next(Path(f.locate()) for f in files("numpy") if str(f).endswith("licenses/LICENSE.txt"))
    text = licences.read_text(encoding="utf-8")
    ends = vocabulary_of(tokenizer).encode(text).ends
    paragraphs = text[: ends[min(TOKENS, len(ends)) - 1]].split("\n\n")
    paragraphs.insert(round(depth * len(paragraphs)), FACT)
    return Document("licences.txt", "\n\n".join(paragraphs))


def read_and_ask(model, tokenizer, text: Document, config, name: str):
    """A context and its answer, with a progress bar while it is read."""
    notes = Console(stderr=True)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task(f"reading, {name}")
        context = sakuin.Context.from_documents(
            model,
            tokenizer,
            [text],
            config,
            progress=lambda done, total, phase: bar.update(
                task, completed=done, total=total, description=phase
            ),
        )
    return context, context.ask(QUESTION, max_new_tokens=32)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--depth", type=float, default=0.6, help="where the fact is planted, 0 to 1")
    depth = arguments.parse_args().depth

    if not catalogue.MODELS["smollm2"].is_here:
        catalogue.get("smollm2", say=console.print)
    chosen = choose("smollm2")
    console.print(f"Loading SmolLM2-135M-Instruct, run by {chosen.backend} ({chosen.why}).")
    model, tokenizer = sakuin.load("smollm2")
    text = document(tokenizer, depth)
    console.print(
        f"The document: licences that come with numpy, {len(text.text):,} characters; planted: {FACT!r}"
    )

    context, answer = read_and_ask(model, tokenizer, text, sakuin.RetrievalConfig(), "retrieval attention")
    full, full_answer = read_and_ask(model, tokenizer, text, "full", "full attention")

    console.print(f"\n[bold]{QUESTION}[/bold]\n{answer.text}\n")
    passages = Table(box=None, pad_edge=False)
    for column in ("lines", "weight", "passage"):
        passages.add_column(column, justify="right" if column == "weight" else "left", overflow="fold")
    for span in answer.evidence[:4]:
        lines = "-".join(str(line) for line in sorted({span.line_start, span.line_end}))
        passages.add_row(lines, f"{span.weight:.0%}", " ".join(span.text.split()))
    console.print(passages)

    table = Table(box=None, pad_edge=False)
    for column, side in (("", "left"), ("sakuin", "right"), ("full attention", "right")):
        table.add_column(column, justify=side)
    stats, held, full_held = answer.stats, context.kv_bytes(), full.kv_bytes()
    for row in (
        ("tokens", f"{answer.tokens:,}", f"{full_answer.tokens:,}"),
        ("prefill", f"{context.prefill_s:.1f} s", f"{full.prefill_s:.1f} s"),
        ("index, whole segments beside the prefill", f"{context.index_s:.1f} s", "-"),
        (
            "decode",
            f"{answer.decode_ms_per_token:.1f} ms/token",
            f"{full_answer.decode_ms_per_token:.1f} ms/token",
        ),
        ("coverage", f"{stats['coverage']:.1%}", "100%"),
        ("touched bytes a token, offloaded", size_of(stats["touched_bytes"]), "-"),
        ("  as a share of the offloaded keys and values", f"{stats['touched_share']:.1%}", "-"),
        ("keys and values on the device", size_of(held["device"]), size_of(full_held["device"])),
        ("keys, values and index on the host", size_of(held["host"]), size_of(full_held["host"])),
    ):
        table.add_row(*row)
    console.print()
    console.print(table)

    if answer.text != full_answer.text:
        console.print(f"\nFull attention said: {full_answer.text}")
    return 0 if "14 March 2031" in answer.text else 1


if __name__ == "__main__":
    sys.exit(main())
