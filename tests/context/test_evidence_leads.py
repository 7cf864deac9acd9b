"""Real models, documents of six styles: the fact's sentence leads, and support knows what was taken out."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.answers import evidence


@pytest.mark.slow
@pytest.mark.parametrize(("model", "apart"), [("smollm2", 0.85), ("gemma3", 0.95)])
def test_the_sentence_leads_and_support_knows_what_was_taken_out(
    model: str, apart: float, request: pytest.FixtureRequest
) -> None:
    loaded: tuple[Any, Any] = request.getfixturevalue(model)
    rows = [evidence.asked(loaded, evidence.text(i, 1200)) for i in range(24)]
    found = evidence.summed(300, rows)
    assert found["right"] >= 16
    assert found["leads"] >= 0.95 * found["right"]
    assert found["auc"] >= apart


def test_every_document_holds_its_fact_once() -> None:
    for i in range(12):
        one = evidence.text(i, 1200)
        assert one.having.count(one.fact.sentence) == 1
        assert one.fact.sentence not in one.lacking
        assert one.fact.value in one.fact.sentence
