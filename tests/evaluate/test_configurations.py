"""Named configurations: what a name means, what is wrong with one, and a knob turned to a share."""

from __future__ import annotations

import pytest

from sakuin import RetrievalConfig
from sakuin.config import PRESETS
from sakuin.errors import SakuinError
from sakuin.evaluate.configurations import calibrated, configuration, configurations


def test_a_name_is_full_attention_a_preset_or_a_kind() -> None:
    assert configuration("full").config is None
    assert configuration("full").context_config == "full"
    for name in PRESETS:
        assert configuration(name).config == RetrievalConfig.preset(name)
    assert configuration("ivf").config == RetrievalConfig(index="ivf")
    assert [c.kind for c in configurations("full flat fast full")] == ["full", "flat", "sketch"]


def test_settings_and_shares_are_read_from_the_name() -> None:
    found = configuration("ivf:estimate_rest=false,budget=0.25@7%")
    assert found.config == RetrievalConfig(index="ivf", estimate_rest=False, budget=0.25)
    assert found.share == pytest.approx(0.07)
    assert configuration("pages@0.2").share == pytest.approx(0.2)
    assert configuration("sketch:target_error=none,kv_dtype=int8").config == RetrievalConfig(kv_dtype="int8")
    like = configuration("topk@sketch:tolerance=2")
    assert (like.like, like.share) == ("sketch:tolerance=2", None)
    assert (like.at(0.5).share, like.at(0.5).name) == (0.5, "topk@sketch:tolerance=2")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "there is no configuration 'nothing'; there are full, fast"),
        ("full@9%", "full attention has no settings"),
        ("flat@9%", "flat has no knob"),
        ("pages@topk:top_k=5@9%", "what it is to be like cannot be at a share itself"),
        ("ivf@0%", "must be above 0 % and at most 100 %"),
        ("ivf@many", "must be above 0 % and at most 100 %"),
        ("ivf@", "must be above 0 % and at most 100 %"),
        ("ivf:budgets=3", "'budgets=3' in the configuration"),
        ("ivf:budget", "write SETTING=VALUE"),
        ("sketch:tolerance=-1", "tolerance must be a finite number of at least 0, got -1"),
        ("topk:index=flat", "'index=flat'"),
    ],
)
def test_a_wrong_name_is_told_in_a_sentence(name: str, said: str) -> None:
    with pytest.raises(SakuinError) as error:
        configuration(name)
    assert said in str(error.value)


def test_no_name_at_all_is_told() -> None:
    with pytest.raises(SakuinError, match="name at least one configuration"):
        configurations(" ")


@pytest.mark.parametrize("kind", ["topk", "pages", "ivf", "graph", "sketch"])
def test_the_knob_is_turned_until_the_share_is_reached(kind: str) -> None:
    def measure(config: RetrievalConfig) -> float:
        if kind == "sketch":
            return 0.05 + 0.1 / (1 + config.tolerance)
        return float(config.budget if kind in ("ivf", "graph") else config.top_k) / 10_000

    found = calibrated(configuration(f"{kind}@9%"), 10_000, measure)
    assert measure(found) == pytest.approx(0.09, rel=0.03)


def test_a_share_below_what_a_kind_can_have_is_told_or_come_near() -> None:
    wanted = configuration("ivf@1%")
    with pytest.raises(SakuinError, match="ivf touches at least 5"):
        calibrated(wanted, 1000, lambda config: 0.05 + config.budget / 1000)
    assert calibrated(wanted, 1000, lambda config: 0.05 + config.budget / 1000, nearest=True).budget == 1
