"""Models with heads of other shapes than most: 512 numbers (Gemma 4), 71 query heads on a KV head (as in
falcon-7b), values of another size than keys (MiMo-V2)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import CLOSE, FLAT, VOCABULARY, feed, tiny, tokens
from transformers import DynamicCache, PreTrainedModel

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.backends.transformers.shape import shape_of

GEMMA4: dict[str, Any] = {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 24,
    "global_head_dim": 512,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
}
MQA: dict[str, Any] = {"hidden_size": 142, "num_attention_heads": 71, "num_key_value_heads": 1}
MIMO: dict[str, Any] = {
    "layer_types": ["full_attention"] * 2,
    "num_key_value_heads": 1,
    "head_dim": 192,
    "v_head_dim": 128,
    "mlp_layer_types": ["dense", "dense"],
}
# model_type, changes, (head_dim, value_dim, query heads of a KV head)
MODELS = [
    ("gemma4_text", GEMMA4, (512, 512, 2)),
    ("llama", MQA, (16, 16, 71)),
    ("mimo_v2_flash", MIMO, (192, 128, 4)),
]


def said(model: PreTrainedModel, cache: Any, ids: torch.Tensor, steps: int) -> torch.Tensor:
    """Logits of a prompt in chunks, then of `steps` tokens one by one."""
    last = [feed(model, cache, ids[:, i : i + 1]) for i in range(ids.shape[1] - steps, ids.shape[1])]
    return torch.cat(last, 1)


@pytest.mark.parametrize(("family", "changes", "heads"), MODELS, ids=[name for name, _, _ in MODELS])
def test_logits_are_those_of_the_models_own_attention(
    family: str, changes: dict[str, Any], heads: tuple[int, int, int]
) -> None:
    eager, ours = tiny(family, "eager", **changes), tiny(family, **changes)
    shape = shape_of(ours.config).heads
    assert (shape.head_dim, shape.value_dim, shape.group_size) == heads
    ids, steps = tokens(400), 20
    theirs = DynamicCache(config=eager.config)
    feed(eager, theirs, ids[:, :-steps])
    expected = said(eager, theirs, ids, steps)
    near = float(expected.abs().max()) * CLOSE
    sketch: dict[str, Any] = {"index": "sketch", "sink": 4, "recent": 16, "segment": 64}
    for config, limit in (
        (FLAT, near),
        (RetrievalConfig(tolerance=0.0, **sketch), near),
        (RetrievalConfig(tolerance=1e-4, cap=1.0, **sketch), 100 * near),
    ):
        cache = RetrievalCache(ours.config, config)
        feed(ours, cache, ids[:, :-steps])
        cache.whole.flush()
        assert cache.retrieval_layers[0].rows[0].index.n_tokens > ids.shape[1] / 2
        fork = cache.fork()
        assert (said(ours, cache, ids, steps) - expected).abs().max() <= limit
        if family != "gemma4_text":  # windows cannot go back
            # A cache that is cut back goes on as one that was never longer.
            fork.crop(200 - fork.get_seq_length())
            feed(ours, fork, ids[:, 200:-steps])
        assert (said(ours, fork, ids, steps) - expected).abs().max() <= limit


@pytest.mark.parametrize(("family", "changes"), [("llama", MQA), ("mimo_v2_flash", MIMO)])
def test_a_padded_batch_gives_each_row_what_it_gets_alone(family: str, changes: dict[str, Any]) -> None:
    model = tiny(family, **changes)
    rows = [tokens(180, seed=1), tokens(90, seed=2)]
    ids, mask = torch.zeros(2, 180, dtype=torch.long), torch.zeros(2, 180, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, 180 - row.shape[1] :], mask[i, 180 - row.shape[1] :] = row[0], 1
    options = {
        "max_new_tokens": 8,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    together = model.generate(ids, attention_mask=mask, cache=RetrievalCache(model.config, FLAT), **options)
    for i, row in enumerate(rows):
        alone = model.generate(row, cache=RetrievalCache(model.config, FLAT), **options)
        for step in range(8):
            assert (together.logits[step][i] - alone.logits[step][0]).abs().max() <= 10 * CLOSE
