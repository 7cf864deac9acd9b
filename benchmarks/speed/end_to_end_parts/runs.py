"""The stages of `benchmarks.speed.end_to_end`: which children run, in which order, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.speed.end_to_end_parts.children import Child, Died
from benchmarks.speed.end_to_end_parts.plan import SPARE, Case, Effort, reading
from benchmarks.speed.end_to_end_parts.ratios import LLAMA, OURS

Row = dict[str, Any]
WARM = 3
PIECE = 512
"""Tokens of a pass of llama.cpp alone."""
PATIENCE = 180.0
"""Seconds beyond four times the estimate until a child is taken for hung."""
LONG, LONG_PROBE = "llama.cpp, long", 16384
"""llama.cpp with the settings that decode a long text fastest, where they are not those that read fastest."""


@dataclass(frozen=True)
class Variant:
    """Settings of llama.cpp alone. library : its label."""

    library: str
    kind: str
    repack: bool

    def __str__(self) -> str:
        return f"{self.library}, KV {self.kind}, {'repacked' if self.repack else 'weights as in the file'}"


@dataclass
class Run:
    """One run. libraries : paths by label, "" for the one that sakuin finds. folder : for the tokens.
    result : what is written; save : writes it."""

    libraries: dict[str, str]
    effort: Effort
    folder: Path
    result: Row
    save: Callable[[], None]
    say: Callable[[str], None]
    threads: int | None
    kinds: tuple[str, ...] = ("f16", "q8_0")
    failures: list[Row] = field(default_factory=list)

    @contextmanager
    def attempt(self, model: str, stage: str) -> Iterator[None]:
        """A stage: a child that dies in it is noted, and what was found is written."""
        self.say(f"{model} {stage}".strip())
        try:
            yield
        except Died as died:
            self.failures.append({"model": model, "stage": stage, "why": str(died)})
            self.say(f"  {stage}: {died}")
        self.save()

    def rate(self) -> None:
        """Measure how fast the machine multiplies matrices."""
        with self.attempt("", "matrix rate"), Child("rate", {"threads": self.threads}) as child:
            self.result["rate"] = child.ask("measure", PATIENCE)


@dataclass
class Measured:
    """One model in a run. found : its part of the result."""

    run: Run
    case: Case
    file: Path
    found: Row
    ids: str = ""
    library: str = ""
    window: int | None = None
    sliding: bool = False
    chosen: list[Variant] = field(default_factory=list)

    def all(self) -> None:
        """Every stage."""
        run, name = self.run, self.case.name
        with run.attempt(name, "loads"):
            self.loads()
        if not self.ids:
            return  # it cannot be loaded: the failure says why
        self.variants()
        with run.attempt(name, "prefill and decode"):
            self.main()
        for to in self.case.filled:
            with run.attempt(name, f"decode at {to:,}"):
                self.filled(to)
        if self.case.together:
            with run.attempt(name, "together"):
                self.together()
        for nominal in self.case.transformers:
            for offloaded in (False, True):
                way = "transformers, " + ("OffloadedCache" if offloaded else "sdpa")
                with run.attempt(name, f"{way}, {nominal:,}"):
                    self.hub(nominal, offloaded, way)

    # -- children --------------------------------------------------------------------------------------------

    def tokens(self, nominal: int) -> int:
        """What is really read for a length: the window may be a little short."""
        return nominal if self.window is None else min(nominal, self.window - SPARE)

    def ours(self, library: str = "") -> Child:
        """A child with sakuin."""
        settings = {"file": str(self.file), "ids": self.ids or None, "threads": self.run.threads}
        return Child("ours", settings, self.run.libraries[library or self.library])

    def peer(self, variant: Variant, cells: int) -> Child:
        """A child with llama.cpp alone."""
        settings = {"file": str(self.file), "ids": self.ids, "threads": self.run.threads}
        settings |= {"cells": cells + PIECE, "kind": variant.kind, "repack": variant.repack}
        return Child("peer", settings, self.run.libraries[variant.library])

    def patience(self, tokens: int) -> float:
        """Seconds until a child that reads so many tokens is taken for hung."""
        return PATIENCE + 4 * reading(self.case.theirs, tokens)

    # -- stages ----------------------------------------------------------------------------------------------

    def loads(self) -> None:
        """Seconds of loading, each in a fresh process, and the tokens of the text."""
        times: dict[str, list[float]] = {OURS: [], LLAMA: []}
        self.library = next(iter(self.run.libraries))
        ids = self.run.folder / f"{self.case.name}.npy"
        for i in range(self.run.effort.loads):
            with self.ours() as child:
                about = child.ask("load", PATIENCE)
                if i == 0:
                    self.window, self.sliding = about["window"], bool(about["sliding"])
                    longest = max(*self.case.lengths, self.case.captured) + 4 * PIECE
                    child.ask("write_ids", PATIENCE, file=str(ids), n=longest)
                    self.ids = str(ids)
            times[OURS].append(about["load_s"])
            with self.peer(Variant(self.library, "f16", False), PIECE) as child:
                times[LLAMA].append(child.ask("load", PATIENCE)["load_s"])
        del about["load_s"]
        self.found["about"] = about
        self.found["load_s"] = {way: median(found) for way, found in times.items()}

    def variants(self) -> None:
        """Which settings of llama.cpp work here, and which of these read and decode fastest."""
        run, first = self.run, self.tokens(self.case.lengths[0])
        self.found["variants"], self.found["libraries"] = [], {}
        rows: dict[Variant, Row] = {}
        for library in run.libraries:
            for kind in run.kinds:
                for repack in (False, True):
                    variant = Variant(library, kind, repack)
                    row = {"library": library, "kv": kind, "repacked": repack}
                    self.found["variants"].append(row)
                    with run.attempt(self.case.name, str(variant)):
                        row["died"] = True
                        row |= self._probe(variant, first)
                        row["died"] = False
                    if not row["died"] and row["finite"]:
                        rows[variant] = row
        if rows:
            reads = max(rows, key=lambda each: rows[each].get("far_per_s", rows[each]["near_per_s"]))
            decodes = min(rows, key=lambda each: rows[each].get("far_ms", rows[each]["near_ms"]))
            self.chosen = list(dict.fromkeys([reads, decodes]))
            self.found["chosen"] = {"reads": str(reads), "decodes": str(decodes)}
        self._libraries(rows, first)

    def _probe(self, variant: Variant, first: int) -> Row:
        """How fast llama.cpp is with these settings: near the start, and far from it over filled cells."""
        far = min(LONG_PROBE, max(self.tokens(n) for n in self.case.lengths)) // PIECE * PIECE
        far = 0 if self.sliding or far <= 2 * first or self.case.peer_to <= first else far
        with self.peer(variant, max(far, first) + PIECE) as child:
            child.ask("load", PATIENCE)
            seconds = min(child.ask("fresh", self.patience(first), n=first)["s"] for _ in range(2))
            child.ask("prefill", self.patience(first), to=first)
            row = {"near_per_s": first / seconds}
            row["near_ms"] = median(child.ask("decode", self.patience(first), steps=16, warm=WARM)["ms"])
            if far:
                row["far"], row["far_per_s"] = far, child.ask("chunk_at", self.patience(far), to=far)
                row["far_ms"] = median(child.ask("decode", self.patience(far), steps=8, warm=WARM)["ms"])
            row["finite"] = child.ask("is_finite", PATIENCE)
        return row

    def _libraries(self, rows: dict[Variant, Row], first: int) -> None:
        """Of each library a step near the start, sakuin's and llama.cpp's best; sakuin's best is taken."""
        for library in self.run.libraries:
            theirs = [row["near_ms"] for variant, row in rows.items() if variant.library == library]
            with self.run.attempt(self.case.name, f"sakuin with {library}"), self.ours(library) as child:
                child.ask("load", PATIENCE)
                child.ask("prefill", self.patience(first), to=first)
                ours = median(child.ask("decode", self.patience(first), steps=16, warm=WARM)["ms"])
                if theirs:
                    self.found["libraries"][library] = {OURS: ours, LLAMA: min(theirs)}
        both = self.found["libraries"]
        if both:
            self.library = min(both, key=lambda each: both[each][OURS])
        self.found["library"] = self.library

    def main(self) -> None:
        """Prefill and decode at every length, sakuin and llama.cpp in turn."""
        with ExitStack() as stack:
            children = {OURS: stack.enter_context(self.ours())}
            longest = self.tokens(min(max(self.case.lengths), self.case.peer_to))
            for way, variant in zip((LLAMA, LONG), self.chosen, strict=False):
                children[way] = stack.enter_context(self.peer(variant, longest + PIECE))
            for child in children.values():
                child.ask("load", PATIENCE)
            fresh = self._fresh(children)
            spent = dict.fromkeys(children, 0.0)
            for nominal in self.case.lengths:
                rows = self._read(children, nominal, spent, fresh)
                self._decode(children, rows, self.tokens(nominal))
                self._keep(rows)
            self._memory(children[OURS])

    def _fresh(self, children: dict[str, Child]) -> dict[str, float]:
        """Seconds of reading the shortest length, medians in turn."""
        n = self.tokens(self.case.lengths[0])
        times: dict[str, list[float]] = {way: [] for way in children if way != LONG}
        for _ in range(self.run.effort.reads):
            for way, seconds in times.items():
                seconds.append(children[way].ask("fresh", self.patience(n), n=n)["s"])
        return {way: median(found) for way, found in times.items()}

    def _read(
        self, children: dict[str, Child], nominal: int, spent: dict[str, float], fresh: dict[str, float]
    ) -> dict[str, Row]:
        """Go on reading up to a length, and ask; spent : seconds of reading so far."""
        n, rows = self.tokens(nominal), {}
        for way, child in list(children.items()):
            if way != OURS and nominal > self.case.peer_to:
                continue
            row: Row = {"way": way, "nominal": nominal, "tokens": n}
            if way == LONG and not self.sliding and n % PIECE == 0 and nominal != self.case.lengths[0]:
                child.ask("fill", self.patience(0), to=n)  # it is there to decode alone
                rows[way] = row
                continue
            found = child.ask("prefill", self.patience(n), to=n)
            spent[way] += found["s"]
            first = nominal == self.case.lengths[0] and way in fresh
            seconds = fresh[way] if first else spent[way]
            row |= {"prefill_s": seconds, "prefill_per_s": n / seconds}
            row["question_s"] = median(child.ask("question", PATIENCE) for _ in range(3))
            row["first_answer_s"] = self.found["load_s"][way if way == OURS else LLAMA] + seconds
            row["first_answer_s"] += row["question_s"]
            rows[way] = row
            if way == OURS:
                self._matrix_share(child, row, found, n)
        return rows

    def _matrix_share(self, child: Child, row: Row, found: Row, n: int) -> None:
        """Of the piece that was read last: what share of the machine's matrix rate it had."""
        done = [each["tokens"] for each in self.found["rows"] if each["way"] == OURS and "flops" in each]
        whole = child.ask("flops", PATIENCE, tokens=n)
        past = child.ask("flops", PATIENCE, tokens=max(done, default=0))
        row["flops"] = whole
        row |= {name: found[name] for name in ("attention_s", "products_s", "seal_s")}
        busy = found["attention_s"] + found["products_s"]
        if busy and "rate" in self.run.result:
            flops = sum(whole.values()) - sum(past.values())
            row["matrix_share"] = flops / busy / self.run.result["rate"]["flops_per_s"]

    def _decode(self, children: dict[str, Child], rows: dict[str, Row], n: int) -> None:
        """Decode in turn; the medians go into the rows."""
        times: dict[str, list[float]] = {way: [] for way in rows}
        for _ in range(self.run.effort.turns):
            for way, row in rows.items():
                steps = {"steps": self.run.effort.steps, "warm": WARM}
                found = children[way].ask("decode", self.patience(n), **steps)
                times[way] += found.pop("ms")
                row |= found
        for way, row in rows.items():
            row["decode_ms"] = median(times[way])
            row["decode_quartiles_ms"] = quantiles(times[way], n=4)[::2]

    def _keep(self, rows: dict[str, Row]) -> None:
        """Add rows; of llama.cpp's two ways the faster step stands in the one row."""
        long = rows.pop(LONG, None)
        if long and LLAMA in rows and long["decode_ms"] < rows[LLAMA]["decode_ms"]:
            rows[LLAMA] |= {name: long[name] for name in ("decode_ms", "decode_quartiles_ms")}
        elif long and LLAMA not in rows:
            rows[LLAMA] = {**long, "way": LLAMA}
        self.found["rows"] += rows.values()
        self.run.save()

    def _memory(self, child: Child) -> None:
        memory, file = child.ask("memory", PATIENCE), self.found["about"]["file_bytes"]
        over = memory["peak"] - memory["before"] - memory["cache"] - file
        self.found["memory"] = {**memory, "file": file, "over": over}

    def filled(self, to: int) -> None:
        """Decode behind more tokens than are read."""
        with ExitStack() as stack:
            ours = stack.enter_context(self.ours())
            ours.ask("load", PATIENCE)
            captured = self.case.captured
            found = ours.ask("fill", self.patience(captured) + PATIENCE, captured=captured, to=to)
            children = {OURS: ours}
            if to <= self.case.peer_to:
                for way, variant in zip((LLAMA, LONG), self.chosen, strict=False):
                    children[way] = stack.enter_context(self.peer(variant, to + PIECE))
                    children[way].ask("load", PATIENCE)
                    children[way].ask("prefill", PATIENCE, to=PIECE)
                    held = children[way].ask("fill", PATIENCE, to=to)["held"]
                    if held != to:
                        raise Died(f"llama.cpp holds {held:,} cells of {to:,}")
            rows: dict[str, Row] = {
                way: {"way": way, "nominal": to, "tokens": to, "filled": True} for way in children
            }
            rows[OURS]["fill_s"] = found["s"]
            self._decode(children, rows, to)
            self._keep(rows)

    def together(self) -> None:
        """Sequences of one context, decoded one by one and together."""
        n = self.tokens(self.case.together)
        with self.ours() as child:
            child.ask("load", PATIENCE)
            child.ask("prefill", self.patience(n), to=n)
            self.found["together"] = {"tokens": n, **child.ask("together", PATIENCE, steps=24)}

    def hub(self, nominal: int, offloaded: bool, way: str) -> None:
        """transformers on the same weights, dequantized."""
        n = self.tokens(nominal)
        settings = {"name": self.case.name, "ids": self.ids, "offloaded": offloaded}
        with Child("hub", {**settings, "threads": self.run.threads}) as child:
            about = child.ask("load", 2 * PATIENCE)
            row: Row = {"way": way, "nominal": nominal, "tokens": n, "dtype": about["dtype"]}
            seconds = child.ask("prefill", self.patience(n), to=n)["s"]
            row |= {"prefill_s": seconds, "prefill_per_s": n / seconds}
            row["question_s"] = child.ask("question", PATIENCE)
            row["first_answer_s"] = about["load_s"] + seconds + row["question_s"]
            effort = self.run.effort
            steps = {"steps": effort.turns * effort.steps, "warm": WARM}
            times = child.ask("decode", self.patience(n), **steps)["ms"]
            row["decode_ms"], row["decode_quartiles_ms"] = median(times), quantiles(times, n=4)[::2]
            self.found["rows"].append(row)
