"""What was appended to a text: the divergence from full attention on it, of the same kind and of others, and
from how many tokens on a segment that is not full should have a basis of its own.

Some technical English is read and sealed, then a text of each kind is appended to it, as a second document
is, and 96 tokens that follow are decoded, teacher-forced: by full attention, and by an index whose segments
of at least 16 and of at least 4 head_dim tokens have a basis of their own. What is sealed then begins with
the first text's recent window, and what was appended last lies in the recent window itself.

Run: python -m benchmarks.contexts.appended [--model smollm2] [--tokens 3500] [--then 900]
     [--kinds japanese code]
Takes two minutes on two cores (SmolLM2; Gemma 3 needs --then 1024 or more).
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from benchmarks.common import argument_parser, command, load, show, write
from sakuin import RetrievalCache, RetrievalConfig
from sakuin.backends.open import backend_of, vocabulary_of
from sakuin.context.generate import prefill
from sakuin.evaluate.prefilled import Prefilled
from sakuin.evaluate.texts.domains import domain
from sakuin.index import sketch
from sakuin.prompts.template import Prompt

DECODED = 96
OWN_BASIS = (16, 4)


def measure(name: str, first: int, then: int, kinds: list[str]) -> list[dict[str, Any]]:
    """One row for each kind of text and each threshold."""
    model, tokenizer = load(name, "fp32")
    if then < (least := OWN_BASIS[-1] * model.model.layers[0].self_attn.head_dim):
        raise SystemExit(
            f"--then must be at least {least}, or no segment has a basis of its own; got {then}."
        )
    prompt = Prompt.of(vocabulary_of(tokenizer))
    begun = [*prompt.head, *prompt.encode(domain("english").make(6 * first)).ids][:first]
    rows = []
    for kind in kinds:
        # Of the kind that was read already, what comes after it.
        other = prompt.encode(domain(kind).make(6 * (first + then))).ids
        other = other[first:] if kind == "english" else other
        appended, following = other[:then], other[then : then + DECODED]
        if len(following) < DECODED:
            raise SystemExit(f"the {kind} text has only {len(other)} tokens; take a smaller --then.")
        read = Prefilled.read(model, begun + appended)
        truth = read.log_probabilities(read.full_cache(), following)
        for own in OWN_BASIS:
            cache = RetrievalCache(model.config, RetrievalConfig())
            with patch.object(sketch, "_OWN_BASIS", own):
                for part in (begun, appended):
                    prefill(backend_of(model), cache, part)
                    cache.seal()
            found = read.log_probabilities(cache, following)
            kl = (truth.exp() * (truth - found)).sum(-1)
            rows.append(
                {
                    "model": name,
                    "tokens": first,
                    "appended": then,
                    "kind": kind,
                    "own_basis": own,
                    "segments": [len(x) for x in cache.retrieval_layers[0].rows[0].index.segments],
                    "kl_mean": kl.mean().item(),
                    "kl_worst": kl.max().item(),
                    "touched_share": cache.stats()["touched_share"],
                }
            )
    show(f"{name}, {then:,} tokens after {first:,}", rows[0], (row.values() for row in rows))
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=3500)
    parser.add_argument("--then", type=int, default=900)
    parser.add_argument("--kinds", nargs="+", default=["english", "japanese", "code"])
    chosen = parser.parse_args()
    rows = measure(chosen.model, chosen.tokens, chosen.then, chosen.kinds)
    write(f"appended-{chosen.model}", {"command": command(), "results": rows})


if __name__ == "__main__":
    main()
