"""The fidelity evaluation: what is exact shows no error, what drops tokens shows one, and nothing is run
twice."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny

from sakuin.backends import catalogue
from sakuin.backends.transformers import load as models
from sakuin.config import PRESETS
from sakuin.errors import SakuinError
from sakuin.evaluate.answers.fidelity import Unit, about, run
from sakuin.evaluate.answers.fidelity_rows import ahead, interval, row, rows
from sakuin.evaluate.configurations import configurations
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts.domains import DOMAINS, domain
from sakuin.evaluate.texts.passages import passage, record_passage
from sakuin.evaluate.texts.records import parsed

SMALL = "sink=4,recent=16,segment=64"
NAMES = f"sketch:{SMALL} flat:{SMALL} streaming:{SMALL} pages:{SMALL}@sketch:{SMALL}"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    catalogue.get("smollm2")
    return models.describe("smollm2").tokenizer


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("llama", vocab_size=49_152)


@pytest.fixture(scope="module")
def units(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Unit]:
    passages = [
        passage(tokenizer, "english", domain("english").make, (200, 400), 64),
        record_passage(tokenizer, "records", (400,), 130),
    ]
    path = tmp_path_factory.mktemp("fidelity") / "results.jsonl"
    facts = about("tiny", "fp32")
    found = list(run(model, passages, configurations(NAMES), Results(path, facts)))
    heard: list[str] = []
    again = list(run(model, passages, configurations(NAMES), Results(path, facts), heard.append))
    assert (again, heard) == (found, [])
    assert len(Results(path, facts)) == len(found)
    with pytest.raises(SakuinError, match="another run"):
        Results(path, about("tiny", "bf16"))
    return found


def of(units: list[Unit], start: str) -> list[Unit]:
    return [unit for unit in units if unit.configuration.startswith(start)]


def test_every_text_length_and_configuration_is_measured(units: list[Unit]) -> None:
    assert len(units) == 3 * 4
    for unit in units:
        assert len(unit.kl) == len(unit.same) == len(unit.nll) + 1 == len(unit.right) + 1
        assert (len(unit.errors), len(unit.errors[0]), unit.layers) == (2, 4, [0, 1])
        assert 0 < min(unit.retrieved) <= max(unit.retrieved) < len(unit.kl)


def test_exact_attention_shows_no_error(units: list[Unit]) -> None:
    for unit in of(units, "flat"):
        assert max(unit.kl) < 1e-5
        assert max(e for layer in unit.errors for e in layer) < 1e-5
        assert unit.touched_share == pytest.approx(2.0)


def test_dropped_tokens_show(units: list[Unit]) -> None:
    ours, none = row(of(units, "sketch")), row(of(units, "streaming"))
    assert none.kl > 10 * ours.kl > 0
    assert none.error > 3 * ours.error > 0
    assert none.touched_share == 0
    mean, low, high = ahead(
        units, of(units, "sketch")[0].configuration, of(units, "streaming")[0].configuration
    )
    assert 0 < low < mean < high


def test_a_peer_comes_to_the_share_it_is_to_be_like(units: list[Unit]) -> None:
    for ours, peer in zip(of(units, "sketch"), of(units, "pages"), strict=True):
        assert "top_k" in peer.settings
        assert peer.touched_share == pytest.approx(ours.touched_share, rel=0.25)


def test_rows_put_units_together() -> None:
    unit = Unit(
        passage="a",
        length=100,
        configuration="x",
        kl=[0.1, 0.3, 0.2],
        same=[True, False, True],
        nll=[1.0, 2.0],
        full_nll=[1.0, 1.0],
        right=[True, False],
        full_right=[True, True],
        retrieved=[2],
        layers=[3],
        errors=[[0.1, 0.5]],
        worst_error=0.9,
        touched_share=0.1,
        touched_bytes=10.0,
        coverage=0.9,
        exact=0.0,
        codes=0.0,
        settings={},
    )
    other = replace(unit, passage="b", kl=[0.0] * 3, touched_share=0.3, right=[True, True])
    whole = row([unit, other])
    assert (whole.tokens, whole.kl_worst, whole.worst_head) == (6, 0.3, 0.5)
    assert whole.kl == pytest.approx(0.1)
    assert whole.kl_retrieval == pytest.approx(0.15)
    assert whole.perplexity_ratio == pytest.approx(math.exp(0.5))
    assert (whole.lost, whole.retrieved) == (1, 2)
    assert whole.touched_share == pytest.approx(0.2)
    assert list(rows([unit, other], lambda u: u.passage)) == ["a", "b"]


def test_intervals_hold_the_mean_and_shrink_with_more_of_it() -> None:
    few, many = [[0.0, 1.0] * 40], [[0.0, 1.0] * 4000]
    assert interval([[0.5] * 50]) == (0.5, 0.5)
    (a, b), (c, d) = interval([[0.0] * 16, [1.0] * 16] * 3), interval([[0.0] * 16, [1.0] * 16] * 300)
    assert a < c < 0.5 < d < b
    assert interval(few)[0] == interval(many)[0] == 0.5  # each block holds as many of both


@pytest.mark.parametrize("name", list(DOMAINS))
def test_a_domain_writes_as_much_as_is_asked_and_the_same_each_time(name: str) -> None:
    text = domain(name).make(50_000)
    assert len(text) >= 50_000
    assert domain(name).make(50_000) == text
    other = domain(name).make(50_000, 1)
    assert len(other) >= 50_000
    assert other[:200] != text[:200]
    paragraphs = [line for line in text.splitlines() if line.strip()]
    assert len(set(paragraphs)) > len(paragraphs) / 3


def test_a_passage_holds_its_facts_where_they_are_to_be(tokenizer: Any) -> None:
    found = passage(tokenizer, "contracts", domain("contracts").make, (1000, 300), 60)
    text = tokenizer.decode(found.ids)
    assert [stop.length for stop in found.stops] == [300, 1000]
    assert len(found.ids) == 1000
    for stop, place in zip(found.stops, ("archive", "harbour"), strict=True):
        asked = tokenizer.decode(stop.continuation)
        answer = asked.rsplit(" ", 1)[1].rstrip(".")
        assert len(stop.continuation) == 60
        assert f"The secret passkey of the {place} is {answer}." in tokenizer.decode(found.ids[: stop.length])
        assert text.count(answer) == 1
        # Its digits alone are what only the text tells.
        assert "".join(tokenizer.decode(stop.continuation[at]) for at in stop.retrieved).strip() == answer


def test_a_fact_does_not_part_another_that_stands_close_to_it(tokenizer: Any) -> None:
    found = passage(tokenizer, "contracts", domain("contracts").make, (900, 930), 60)
    text = tokenizer.decode(found.ids)
    assert text.count("Remember it.") == 2
    assert "The secret passkey of the archive is 71493. Remember it." in text


def test_a_file_of_long_words_is_long_enough_when_all_of_it_is(tokenizer: Any) -> None:
    """Some texts have many more characters to a token than others."""
    wide = (" " * 60 + "x") * 500
    n = len(tokenizer(wide)["input_ids"])
    assert len(wide) > 12 * n
    assert len(passage(tokenizer, "wide", lambda characters: wide, (n - 100,), 64).ids) == n - 100
    with pytest.raises(SakuinError, match=f"wide has {n:,} tokens, and {n + 100:,} are needed"):
        passage(tokenizer, "wide", lambda characters: wide, (n + 36,), 64)


def test_records_are_those_of_the_context(tokenizer: Any) -> None:
    found = record_passage(tokenizer, "records", (900, 2000), 220)
    for stop in found.stops:
        context = tokenizer.decode(found.context(stop))
        said = parsed(tokenizer.decode(stop.continuation))
        places = []
        for record in said:
            told = f"Order {record['order']}: name {record['name']}, depot {record['depot']},"
            places.append(context.index(told) / len(context))
        assert places == sorted(places)
        assert places[0] < 0.35 < 0.6 < places[-1]
        # Names, depots, items and quantities are what only the text tells.
        retrieved = "".join(tokenizer.decode(stop.continuation[at]) for at in stop.retrieved)
        values = [str(record[key]) for record in said for key in ("name", "depot", "item", "quantity")]
        assert retrieved.replace(" ", "") == "".join(values).replace(" ", "")
    with pytest.raises(SakuinError, match="a length of 20 tokens holds no whole record"):
        record_passage(tokenizer, "records", (20,), 220)
    with pytest.raises(SakuinError, match="tokens must follow 900 tokens of records, got 10"):
        record_passage(tokenizer, "records", (900,), 10)


def test_other_settings_of_the_same_name_are_measured_anew(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = [passage(tokenizer, "english", domain("english").make, (900,), 64)]
    results = Results(tmp_path / "results.jsonl", {})
    list(run(model, passages, configurations("fast"), results))
    heard: list[str] = []
    list(run(model, passages, configurations("fast"), results, heard.append))
    assert (heard, len(results)) == ([], 1)
    monkeypatch.setitem(PRESETS, "fast", {"tolerance": 3.0})
    list(run(model, passages, configurations("fast"), results, heard.append))
    assert heard
    assert len(results) == 2


def test_what_cannot_be_measured_is_told(model: Any, tokenizer: Any) -> None:
    with pytest.raises(SakuinError, match="short has 2 tokens, and 364 are needed"):
        passage(tokenizer, "short", lambda characters: "too short", (300,), 64)
    with pytest.raises(SakuinError, match="tokens must follow each length, got 20"):
        passage(tokenizer, "english", domain("english").make, (300,), 20)
    with pytest.raises(SakuinError, match="there is no domain 'poems'; the domains are english"):
        domain("poems")
    long = passage(tokenizer, "english", domain("english").make, (5000,), 64)
    with pytest.raises(SakuinError, match=r"more than the 4,096 that this model reads; take at most 4,032"):
        list(run(model, [long], configurations("flat"), Results(None, {})))
    short = passage(tokenizer, "english", domain("english").make, (500,), 64)
    with pytest.raises(SakuinError, match="500 tokens leaves nothing to an index"):
        list(run(model, [short], configurations("balanced"), Results(None, {})))


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_pictures_are_drawn(units: list[Unit], tmp_path: Path) -> None:
    from sakuin.evaluate.answers.pictures import draw_fidelity

    written = draw_fidelity(units, tmp_path, "tiny")
    assert len(written) == 2 * (4 + 1)
    for path in written:
        start = path.read_bytes()[:200]
        assert start.startswith(b"\x89PNG") if path.suffix == ".png" else b"<?xml" in start


def run_cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sakuin", "eval", "fidelity", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_command_measures_a_file_and_goes_on(tmp_path: Path, long_text: str) -> None:
    file = tmp_path / "licences.txt"
    file.write_text(long_text, encoding="utf-8")
    words = [str(file), "--lengths", "900", "--tokens", "48", "--out", str(tmp_path), "--no-pictures"]
    done = run_cli(*words, "--configurations", "balanced flat", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["backend"] == "llama.cpp"
    found, exact = report["configurations"]
    assert (found["configuration"], found["tokens"]) == ("balanced", 48)
    assert 0 < found["kl"] < 0.002
    assert exact["kl"] < 1e-6  # nothing of how llama.cpp rounds
    assert 0 < found["touched_share"] < 0.5
    assert list(report["by_text"]) == ["licences.txt"]
    assert int(report["machine"]["threads"]) >= 1
    kept = (tmp_path / "fidelity-smollm2" / "results.jsonl").read_text()
    shown = run_cli(*words, "--configurations", "balanced flat")
    assert "balanced" in shown.stdout
    assert (tmp_path / "fidelity-smollm2" / "results.jsonl").read_text() == kept


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lengths", "many"], "--lengths takes whole numbers above 0"),
        (["--configurations", "nothing"], "there is no configuration 'nothing'"),
        (["nowhere.txt"], "there is no file nowhere.txt"),
        (["nowhere.txt", "nowhere.txt"], "nowhere.txt is named twice"),
        (["--domains", "english logs english"], "english is named twice"),
        (["--domains", " "], "--domains names no kind of text"),
        (["--lengths", "900 2000 900"], "--lengths names 900 twice"),
        (["nowhere.txt", "--seed", "1"], "--domains and --seed choose texts, and here are FILES"),
    ],
)
def test_wrong_words_are_told_in_a_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    done = run_cli(*words, "--out", str(tmp_path), "--no-pictures")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
