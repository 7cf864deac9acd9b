"""What a step of `flat` and of `sketch` costs here: the constants by which `index="auto"` chooses.

Times whole decode steps (`Index.decode`: sink, recent window and index) over 1K to 32K offloaded tokens, in
turns and with cold caches, for head_dim 64, 128 and 256, query groups of 1, 3 and 7, one and three KV heads.
Keys, values and queries are smollm2's own over real text with a planted fact, resampled beyond its length
(`sakuin.evaluate.longer`); for heads of 128 and 256 dimensions they are turned into a space of so many, where
they attend as before. Then the model of `sakuin.index.choice` is fitted, by least squares of the relative
error without negative costs, and compared with what was measured: where the two cross, and what the choice
costs against the better of both.

Run: python -m benchmarks.speed.choice [--isa ISA ...] [--trace FILE]

Without `--isa` every instruction set of this machine that has constants is measured, each in a process of its
own, some 45 s each. The constants go into src/sakuin/index/costs.py, the figures into
benchmarks/results/choice-<isa>.json.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch

from benchmarks.common import argument_parser, console, load, show, write
from sakuin import RetrievalConfig, build_index
from sakuin.evaluate import Trace, capture, longer
from sakuin.evaluate.traces.trace import Layer
from sakuin.index import Static, _native, choice
from sakuin.index.costs import COSTS, FlatCosts, SketchCosts, StepCosts
from sakuin.machine import children

LENGTH, LAYERS, LONGEST = 4600, (3, 12, 17, 26), 32768
TOKENS = (1024, 2048, 4096, 8192, 16384, LONGEST)
DIMS, GROUPS, HEADS = (64, 128, 256), (1, 3, 7), (1, 3)
POSITIONS = (60, 150, 240, 330, -4)  # where the steps ask: running text, and once a retrieval step
PASSES = 3
STORED = ("bf16", "fp16", "fp32", "int8")
CONFIG = RetrievalConfig()


class Case:
    """KV heads of `head_dim` dimensions, made of the layers' own heads, and queries for the largest group."""

    def __init__(self, layers: list[Layer], head_dim: int, heads: int) -> None:
        self.heads, self.scaling = heads, layers[0].scaling
        # Of as many layers as there are heads, from the one with the fewest keys found to that with the most.
        made = [layer.head(0) for layer in layers[:: len(layers) // heads][:heads]]
        own, seeded = made[0].keys.shape[2], torch.Generator().manual_seed(0)
        turns = [torch.linalg.qr(torch.randn(head_dim, own, generator=seeded))[0].T for _ in made]

        def turned(take: Any) -> torch.Tensor:
            """Vectors of all heads in `head_dim` dimensions, inner products as they were."""
            parts = [take(x) for x in made]
            if head_dim > own:
                parts = [(x.float() @ turn).to(x.dtype) for x, turn in zip(parts, turns, strict=True)]
            return torch.cat(parts, -3).contiguous()

        self.keys, self.values = turned(lambda x: x.keys), turned(lambda x: x.values)
        self.sink, self.recent = turned(lambda x: x.sink), turned(lambda x: x.recent[:, :, : CONFIG.recent])
        self.queries = turned(lambda x: torch.cat([x.queries] * 3)[: max(GROUPS)])
        self.positions = layers[0].query_positions
        # Tokens of the trace before it was made longer.
        self.real = LONGEST / math.exp(layers[0].raised)
        # A larger group than the model's is made of its query heads at neighbouring positions.
        self.asked = [
            turned(lambda x, p=p: torch.cat([x.asked[:, p + i] for i in range(3)])[: max(GROUPS), None])
            for p in POSITIONS
        ]

    def steps(self, group: int, n: int) -> Iterator[tuple[torch.Tensor, Static]]:
        """Queries and static parts of the asked positions. Where the index holds more than the real tokens,
        the static part keeps its share of the softmax by a sink logit."""
        for whole in self.asked:
            q = whole.view(self.heads, max(GROUPS), 1, -1)[:, :group].flatten(0, 1)
            keys = torch.cat([self.sink[0], self.recent[0]], 1).float().repeat_interleave(group, 0)
            lse = (q @ keys.transpose(1, 2) * self.scaling).logsumexp(-1)[:, 0]
            raised = None if n <= self.real else lse + math.log(n / self.real - 1)
            yield q, Static(*self.sink, *self.recent, raised)

    def index(self, kind: str, n: int, **knobs: Any) -> Any:
        m = int((self.positions < n).sum())
        return build_index(
            kind,
            self.keys[:, :n],
            self.values[:, :n],
            queries=self.queries[:, :m],
            query_positions=self.positions[:m],
            **knobs,
        )

    def timed(self, indexes: list[Any], group: int) -> torch.Tensor:
        """Microseconds of a decode step of each index with a query group of `group`, `(indexes, positions)`:
        in turns, each after more memory was read than a cache holds, since a model comes back to a layer only
        after all its others."""
        memory = torch.zeros(1 << 26, dtype=torch.bfloat16)
        steps = list(self.steps(group, indexes[0].n_tokens))
        times = torch.zeros(len(indexes), len(steps))
        for index in indexes:
            index.group_size = group
            index.decode(*steps[0], scaling=self.scaling)
        for (at, step), (row, index) in product(enumerate(steps), enumerate(indexes)):
            _native.read_rate(memory, torch.get_num_threads())
            start = perf_counter()
            index.decode(*step, scaling=self.scaling)
            times[row, at] = (perf_counter() - start) * 1e6
        return times


def shape_of(row: dict[str, Any]) -> choice.HeadShape:
    return choice.HeadShape(row["head_dim"], row["group"], row["heads"])


def measure(layers: list[Layer]) -> list[dict[str, Any]]:
    """A row for each geometry and number of tokens: `flat` in bf16 and `sketch`; at the longest also `flat`
    in the other dtypes and `sketch` at other tolerances."""
    rows = []
    for head_dim, heads in product(DIMS, HEADS):
        case, built = Case(layers, head_dim, heads), {}
        for n in TOKENS:
            sketch = case.index("sketch", n)
            built[n] = indexes = {"flat bf16": case.index("flat", n), "sketch": sketch}
            if n == LONGEST:
                for name in STORED[1:]:
                    indexes[f"flat {name}"] = case.index("flat", n, kv_dtype=name)
                for tolerance in (0.25, 4.0):
                    other = indexes[f"sketch {tolerance:g}"] = sketch.fork()
                    other.config = replace(sketch.config, tolerance=tolerance)
        # Of each step the least of a few times far apart, since a busy neighbour only makes it longer; then
        # the median over the positions.
        cells = list(product(TOKENS, GROUPS))
        passes = [[case.timed(list(built[n].values()), group) for n, group in cells] for _ in range(PASSES)]
        for (n, group), *times in zip(cells, *passes, strict=True):
            took = torch.stack(times).amin(0).median(1).values.tolist()
            row = {"head_dim": head_dim, "group": group, "heads": heads, "tokens": n}
            rows.append(row | dict(zip(built[n], took, strict=True)))
    return rows


# --- fitting ------------------------------------------------------------------------------------------------


def least_squares(terms: list[list[float]], times: list[float]) -> list[float]:
    """Costs of at least 0 whose sums over `terms` come closest to `times`, by relative error."""
    target = torch.tensor(times, dtype=torch.float64)
    rows = torch.tensor(terms, dtype=torch.float64) / target[:, None]
    ones, kept = torch.ones(len(times), 1, dtype=torch.float64), list(range(rows.shape[1]))
    while True:
        found = torch.linalg.lstsq(rows[:, kept], ones).solution[:, 0]
        if float(found.min()) >= 0:
            break
        del kept[int(found.argmin())]
    costs = [0.0] * rows.shape[1]
    for at, cost in zip(kept, found.tolist(), strict=True):
        costs[at] = cost
    return costs


def fit(rows: list[dict[str, Any]]) -> StepCosts:
    """The constants of `sakuin.index.choice` from measured steps."""
    static = CONFIG.sink + CONFIG.recent

    def of_flat(row: dict[str, Any]) -> list[float]:
        d, g = row["head_dim"], row["group"]
        keys = row["heads"] * (static + row["tokens"]) / 1e3
        return [1.0, keys * d, keys * d * g, keys * g]

    flat = {}
    for name in STORED:
        some = [row for row in rows if f"flat {name}" in row]
        times = [row[f"flat {name}"] for row in some]
        if name != "bf16":  # measured at one length: the call costs what it costs in bf16
            times = [took - flat["bf16"].call for took in times]
        costs = least_squares([of_flat(row)[name != "bf16" :] for row in some], times)
        flat[name] = FlatCosts(*([flat["bf16"].call] if name != "bf16" else []), *costs)

    # What `sketch` takes beyond its static part, which is attended as `flat` does.
    def beyond(row: dict[str, Any], name: str) -> float:
        part = FlatCosts(0.0, flat["bf16"].dim, flat["bf16"].multiply, flat["bf16"].head)
        return row[name] - row["heads"] * static / 1e3 * part.key(row["head_dim"], row["group"])

    terms = [
        choice.sketch_terms(row["tokens"], shape_of(row), CONFIG.segment_tokens(row["head_dim"]))
        for row in rows
    ]
    costs = least_squares(terms, [max(beyond(row, "sketch"), 1.0) for row in rows])
    # Costs of keys grow as the tolerance falls, by a power of it.
    powers = []
    keys_from = 1 + choice.SEGMENT_TERMS
    for row, term in zip(rows, terms, strict=True):
        if "sketch 4" in row:
            fixed = sum(c * x for c, x in zip(costs[:keys_from], term[:keys_from], strict=True))
            fine, coarse = (max(beyond(row, f"sketch {t}") - fixed, 1.0) for t in ("0.25", "4"))
            powers.append(math.log(fine / coarse) / math.log(16))
    return StepCosts(flat, SketchCosts(*costs, power=median(powers)))


def crossing(ratios: list[float], at: float) -> float | None:
    """Tokens from which flat / sketch stays at least `at`, between those measured by its logarithm; None
    beyond the longest, 0 from the first on."""
    above = len(ratios)
    while above and ratios[above - 1] >= at:
        above -= 1
    if above == len(ratios):
        return None
    if above == 0:
        return 0.0
    share = (at - ratios[above - 1]) / (ratios[above] - ratios[above - 1])
    return float(TOKENS[above - 1] * (TOKENS[above] / TOKENS[above - 1]) ** share)


def judged(rows: list[dict[str, Any]], costs: StepCosts) -> list[dict[str, Any]]:
    """Measured and predicted, for each geometry."""
    out = []
    for d, g, h in product(DIMS, GROUPS, HEADS):
        mine = [r for r in rows if (r["head_dim"], r["group"], r["heads"]) == (d, g, h)]
        shape = choice.HeadShape(d, g, h)
        ratios = [r["flat bf16"] / r["sketch"] for r in mine]
        predicted = [shape.flat_us(n, CONFIG, costs) / shape.sketch_us(n, CONFIG, costs) for n in TOKENS]
        start = shape.sketch_from(CONFIG, costs=costs)
        out.append(
            {
                "head_dim": d,
                "group": g,
                "heads": h,
                "even": crossing(ratios, 1.0),
                "even predicted": crossing(predicted, 1.0),
                "worth": crossing(ratios, choice.WORTH),
                "worth predicted": crossing(predicted, choice.WORTH),
                "sketch from": start,
                "flat/sketch at 32K": ratios[-1],
                "predicted": predicted[-1],
            }
        )
    return out


def save(isa: str, costs: StepCosts) -> None:
    """Write src/sakuin/index/costs.py anew with these constants in place of this instruction set's."""
    path = Path(choice.__file__).with_name("costs.py")
    before = path.read_text().split("COSTS: ")[0]

    def number(x: float) -> str:
        return f"{x:.4g}" if x and abs(x) < 1000 else f"{x:.1f}"

    lines = ["COSTS: dict[str, StepCosts] = {"]
    for name, each in sorted({**COSTS, isa: costs}.items()):
        lines += [f'    "{name}": StepCosts(', "        flat={"]
        for stored, c in each.flat.items():
            numbers = ", ".join(number(x) for x in vars(c).values())
            lines.append(f'            "{stored}": FlatCosts({numbers}),')
        lines += ["        },", "        sketch=SketchCosts("]
        lines += [f"            {field}={number(x)}," for field, x in vars(each.sketch).items()]
        lines += ["        ),", "    ),"]
    path.write_text(before + "\n".join([*lines, "}"]) + "\n")
    console.print("wrote src/sakuin/index/costs.py")


def one(isa: str, trace: Trace) -> None:
    rows = measure(list(trace.layers.values()))
    costs = fit(rows)
    table = judged(rows, costs)
    show(f"From how many offloaded tokens sketch pays, {isa}", table[0], [row.values() for row in table])
    errors = sorted(
        abs(math.log(predicted / row[name]))
        for row in rows
        for name, predicted in (
            ("flat bf16", shape_of(row).flat_us(row["tokens"], CONFIG, costs)),
            ("sketch", shape_of(row).sketch_us(row["tokens"], CONFIG, costs)),
        )
    )
    of = {(row["head_dim"], row["group"], row["heads"]): row["sketch from"] for row in table}
    over = []
    for row in rows:
        start = of[row["head_dim"], row["group"], row["heads"]]
        both = row["flat bf16"], row["sketch"]
        over.append(both[start is not None and row["tokens"] >= start] / min(both))
    off = [math.expm1(errors[int(share * len(errors))]) for share in (0.5, 0.9)]
    console.print(
        f"predicted times are off by {off[0]:.0%} (median), {off[1]:.0%} (nine tenths); what is chosen takes "
        f"{fmean(over):.2f} times the faster one's time on average, {max(over):.2f} times at worst"
    )
    write(
        f"choice-{isa}",
        {
            "command": f"python -m benchmarks.speed.choice --isa {isa}",
            "off_median": off[0],
            "off_nine_tenths": off[1],
            "chosen_over_better": fmean(over),
            "worst_over_better": max(over),
            "choices": table,
            "steps_us": rows,
        },
    )
    save(isa, costs)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--isa", nargs="+", choices=[isa for isa in _native.isas() if isa in COSTS])
    parser.add_argument("--trace", type=Path, help="a trace file of smollm2 that is long enough")
    args = parser.parse_args()
    if args.trace and args.isa == [_native.isa()]:
        one(_native.isa(), Trace.load(args.trace))
        return
    with tempfile.TemporaryDirectory() as folder:
        trace = args.trace
        if trace is None:
            trace = Path(folder) / "trace.safetensors"
            longer(capture(*load("smollm2", "fp32"), LENGTH, LAYERS), LONGEST).save(trace)
        for isa in args.isa or [isa for isa in _native.isas() if isa in COSTS]:
            words = ("-m", "benchmarks.speed.choice", "--isa", isa, "--trace", str(trace))
            environment = children.environment(Path(__file__).parents[2], SAKUIN_ISA=isa)
            subprocess.run(children.python(*words), env=environment, check=True)


if __name__ == "__main__":
    main()
