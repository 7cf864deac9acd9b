"""Where the error of `sketch` comes from: the same steps with one part of the method after another replaced
by the truth.

Runs the plain statement of the method (tests/reference) on a real trace of smollm2, a position in 64 of the
running text and every retrieval step. `tail` are the tokens that enter by their list, scored again or not.
The last rows leave a part of the method out: quantizer ranges by fourth powers of the error (not squares),
the tilt of the lists' means, and what makes up for uncertain exponentials.

Run: python -m benchmarks.method.error_sources [--length 4000] [--tokens 16384]
"""

from __future__ import annotations

from benchmarks.common import argument_parser, command, load, show, write
from benchmarks.plain_steps import Step, sealed
from sakuin import merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer, capture, longer

REPLACED = {
    "as it is": (),
    "true scores in the tail": ("tail score",),
    "true values in the tail": ("tail value",),
    "true scores and values in the tail": ("tail score", "tail value"),
    "true scores of coded tokens": ("code score",),
    "true values of coded tokens": ("code value",),
}
LEFT_OUT = {"without the tilt": "tilt", "without raising the tail": "raise"}


def errors(layer: Layer) -> dict[str, list[float]]:
    """Relative error of the whole output for every variant, over positions and query heads."""
    static, exact = layer.static(), layer.exact()
    truth = merge([static, exact]).out
    segments, by_squares = sealed(layer), sealed(layer, power=2)
    t = layer.asked.shape[1]
    found: dict[str, list[float]] = {}
    for at in (*range(0, 512, 64), *range(t - layer.retrieval, t)):
        query, lse = layer.asked[:, at], static.lse[:, at]
        step = Step(segments, query, layer.scaling, lse)
        variants = {name: step.attend(parts) for name, parts in REPLACED.items()}
        variants |= {name: step.attend(left_out=part) for name, part in LEFT_OUT.items()}
        variants["ranges by squares"] = Step(by_squares, query, layer.scaling, lse).attend()
        beside = PartialAttention(static.out[:, at : at + 1], static.lse[:, at : at + 1])
        for name, part in variants.items():
            out = merge([beside, part]).out[:, 0]
            error = (out - truth[:, at]).norm(dim=-1) / truth[:, at].norm(dim=-1)
            found.setdefault(name, []).extend(error.tolist())
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--length", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=16384, help="offloaded tokens of the resampled trace")
    chosen = parser.parse_args()
    trace = capture(*load("smollm2", "fp32"), chosen.length)
    rows = []
    for one in (trace, longer(trace, chosen.tokens)):
        found: dict[str, list[float]] = {}
        for whole in one.layers.values():
            for head in range(whole.keys.shape[0]):
                for name, each in errors(whole.head(head)).items():
                    found.setdefault(name, []).extend(each)
        tokens = next(iter(one.layers.values())).keys.shape[1]
        rows += [
            {"tokens": tokens, "variant": name, "error_mean": sum(e) / len(e), "error_worst": max(e)}
            for name, e in found.items()
        ]
    title = f"Error of the attention output, smollm2, layers {list(trace.layers)}"
    show(title, rows[0], [r.values() for r in rows])
    write("error_sources", {"command": command(), "results": rows})


if __name__ == "__main__":
    main()
