"""A kind of index is one file: what docs/add-an-index.md says is done here, with the page's own code, as a
package that somebody else would install."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.exact import attention, made, relative
from stored import CONFIG, QUESTION, TEXT, model_of, read, said
from test_cli import run
from tiny import FLAT, tiny, tokens

import sakuin
from sakuin import Context, RetrievalConfig, build_index, kinds
from sakuin.backends.transformers.shape import shape_of
from sakuin.capacity.disk import stored_bytes
from sakuin.capacity.need import estimate
from sakuin.errors import SakuinError
from sakuin.evaluate.configurations import configuration
from sakuin.evaluate.prefilled import Prefilled, touched_share
from sakuin.index import choice, new_index
from sakuin.index.kind import kind_of, register
from sakuin.kinds import Option

PAGE = (Path(__file__).parents[2] / "docs/add-an-index.md").read_text(encoding="utf-8")


def code(language: str) -> str:
    """The page's first block in a language."""
    found = re.search(rf"^```{language}[^\n]*\n(.*?)^```", PAGE, re.M | re.S)
    assert found is not None
    return found[1]


def package(folder: Path, entry_points: dict[str, str], **modules: str) -> Path:
    """An installed package with these modules."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    about = folder / "another-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{kinds.GROUP}]", *lines, ""]))
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that the page makes."""
    named = tomllib.loads(code("toml"))["project"]["entry-points"][kinds.GROUP]
    return package(tmp_path_factory.mktemp("site"), named, every_second=code("python"))


@pytest.fixture(autouse=True)
def in_reach(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process finds the package, and knows nothing of it afterwards."""
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setattr(kinds, "_classes", dict(kinds.loaded()))
    kinds._elsewhere.cache_clear()
    yield
    sys.modules.pop("every_second", None)
    kinds._elsewhere.cache_clear()


def every(**changes: Any) -> RetrievalConfig:
    return CONFIG.with_changes(index="every", **changes)


def test_it_is_found_by_its_name() -> None:
    assert "every" not in kinds.loaded()
    assert RetrievalConfig(index="every").options == {"step": 2}
    assert "every" in kinds.loaded()
    with pytest.raises(
        ValueError, match=r"index must be one of sketch, flat, .*, streaming, (.*, )?every, got"
    ):
        RetrievalConfig(index="other")


def test_it_attends_every_second_token_exactly() -> None:
    data = made(300)
    index = build_index("every", data.keys, data.values, group_size=3, segment=64)
    part = index.attend(data.q, scaling=data.scaling)
    out, lse = attention(data.q, data.keys[:, ::2], data.values[:, ::2], data.scaling)
    assert float(relative(part.out, out).max()) < 1e-5
    torch.testing.assert_close(part.lse.double(), lse, rtol=1e-5, atol=1e-5)
    keys, values = index.fork().crop(100)
    assert keys.shape == values.shape == (2, 100 - 64, 64)
    assert index.n_tokens == 300


def test_its_own_settings_are_checked_and_told() -> None:
    data = made(100)
    assert build_index("every", data.keys, data.values, step=3).config.options == {"step": 3}
    assert every(step=3).with_changes(tolerance=2.0).options == {"step": 3}
    assert every(step=3).with_changes(index="flat").options == {}
    assert hash(every(step=3)) == hash(every(step=3))
    with pytest.raises(ValueError, match="step must be a whole number of at least 1, got 0"):
        every(step=0)
    with pytest.raises(ValueError, match="kind 'every' has no option 'stride'; its options are step"):
        RetrievalConfig(index="every", options={"stride": 2})
    with pytest.raises(ValueError, match="kind 'flat' has no option 'step'; it has no options"):
        RetrievalConfig(index="flat", options={"step": 2})
    with pytest.raises(TypeError, match=r"unknown setting 'stride'; the settings are .*step"):
        every(stride=2)
    with pytest.raises(ValueError, match="kv_dtype='int8' needs an index of sketch, flat, auto, and"):
        every(kv_dtype="int8")
    with pytest.raises(ValueError, match=r"or 'auto'; got index='every'"):
        every(target_error=0.1)


def test_it_is_asked_saved_and_loaded(tmp_path: Path) -> None:
    context = read(config=every())
    answer = context.ask(QUESTION, max_new_tokens=12)
    assert answer.stats["index"] == "every"
    assert answer.stats["exact"] == pytest.approx(0.5, abs=0.02)
    context = read(config=every())
    before = said(context.fork())
    context.save(tmp_path)
    loaded = Context.load(tmp_path, *model_of())
    assert loaded.config == context.config
    assert said(loaded) == before
    other = Context.load(tmp_path, *model_of(), every(step=1))  # steps alone read it
    assert said(other)[0] == said(read(config=CONFIG.with_changes(index="flat")))[0]
    with pytest.raises(SakuinError, match="other settings of index"):
        Context.load(tmp_path, *model_of(), CONFIG.with_changes(index="flat"))


def test_its_sizes_are_estimated(tmp_path: Path) -> None:
    context = read(config=every(segment=256))
    shape, dtype = shape_of(model_of()[0].config), model_of()[0].dtype
    need = estimate(shape, context.tokens, dtype, context.config, weights=0)
    held = context.kv_bytes()
    assert need.index == 0
    assert held["host"] <= need.kv <= 2 * (held["host"] + held["device"])
    context.save(tmp_path)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert taken <= stored_bytes(shape, dtype, context.config, context.tokens) <= 1.3 * taken


def test_it_lies_on_disk_while_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path))
    inside, outside = read(config=every()), read(config=every(offload="disk"))
    assert outside.kv_bytes()["disk"] > 0.8 * inside.kv_bytes()["host"]
    assert said(outside) == said(inside)


def test_it_is_evaluated_at_a_share() -> None:
    model, ids = tiny("llama"), tokens(740)[0].tolist()
    prefilled = Prefilled.read(model, ids[:700])
    wanted = configuration("every:sink=4,recent=16,segment=64,step=3@50%")
    cache = prefilled.cache(wanted, ids[700:])
    prefilled.continued(cache, ids[700:])
    # Numbers of 4 bytes count twice.
    assert (cache.config.options, cache.config.sink) == ({"step": 4}, 4)
    assert touched_share(cache) == pytest.approx(0.5, rel=0.02)
    with pytest.raises(SakuinError, match=r"'stride=3' in the configuration .* is no setting; .*step"):
        configuration("every:stride=3")
    other = prefilled.retrieval_cache(FLAT.with_changes(index="every", step=1))
    assert other.fork(FLAT.with_changes(index="every", step=5)).config.options == {"step": 5}
    with pytest.raises(ValueError, match="a fork cannot change index from 'every' to 'flat'"):
        other.fork(FLAT)


def test_the_command_line_takes_its_name(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sakuin.cli import app

    model, paper = str(tmp_path / "model"), tmp_path / "paper.txt"
    for one in model_of():
        one.save_pretrained(model)
    paper.write_text(TEXT)
    here = {"PYTHONPATH": str(installed), "SAKUIN_LIBRARY": str(tmp_path / "library")}
    words = ("--model", model, "--index", "every", "--json")
    done = run("ask", str(paper), QUESTION, *words, "--max-new-tokens", "4", **here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["index"] == "every"
    monkeypatch.setenv("SAKUIN_LIBRARY", here["SAKUIN_LIBRARY"])
    for command in (
        ("contexts", "add", "paper", str(paper), *words),
        ("contexts", "ask", "paper", QUESTION, "--max-new-tokens", "4", "--json"),
    ):
        assert app(list(command), prog_name="sakuin", standalone_mode=False) in (0, None)
    added, answer = map(json.loads, capsys.readouterr().out.splitlines())
    assert (answer["index"], answer["reused_tokens"]) == ("every", added["tokens"])
    assert app(["contexts", "add", "other", str(paper), "--index", "graph"], standalone_mode=False) == 2
    assert "'graph' cannot be kept on disk; use sketch, flat, auto, ivf or every." in capsys.readouterr().err


def test_stored_contexts_of_it_are_listed_without_importing_it(tmp_path: Path, installed: Path) -> None:
    read(config=every()).save(tmp_path / "stored")
    script = (
        "import sys\nfrom pathlib import Path\nfrom sakuin.snapshot import manifest\n"
        f"print(manifest.read(Path({str(tmp_path / 'stored' / 'manifest.json')!r})).config.options)\n"
        "assert not {'torch', 'every_second'} & set(sys.modules)"
    )
    path = [str(installed), str(Path(sakuin.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{'step': 2}\n", "")


def test_what_was_not_asked_of_a_kind_is_asked_when_an_index_is_made() -> None:
    listed = RetrievalConfig(index="topk", kv_dtype="int8", ask_kind=False)
    with pytest.raises(ValueError, match="kv_dtype='int8' needs an index of sketch, flat, auto, and"):
        new_index(2, 64, 3, listed)
    assert new_index(2, 64, 3, RetrievalConfig(index="every", ask_kind=False)).config.options == {"step": 2}


def test_a_package_that_is_broken_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"broken": "broken_one:Index", "unnamed": "unnamed_one"}
    package(tmp_path, named, broken_one="raise OSError('no such library')", unnamed_one="")
    monkeypatch.syspath_prepend(tmp_path)
    kinds._elsewhere.cache_clear()
    with pytest.raises(SakuinError, match=r"'broken' of the package another cannot be .*no such library"):
        RetrievalConfig(index="broken")
    with pytest.raises(SakuinError, match=r"registers none of this name; .*@register\('unnamed'\)"):
        RetrievalConfig(index="unnamed")


def test_a_class_that_names_no_settings_of_ours_is_refused() -> None:
    flat = kind_of("flat")
    with pytest.raises(ValueError, match=r"names the settings \['budgett'\], which RetrievalConfig lacks"):
        register("odd")(type("Odd", (flat,), {"step_settings": frozenset({"budgett"})}))
    with pytest.raises(ValueError, match=r"has options \['budget'\], which are settings of RetrievalConfig"):
        register("odd")(type("Odd", (flat,), {"options": {"budget": Option(1, print, "")}}))
    assert not kinds.is_known("odd")


# --- the kinds that are built in ----------------------------------------------------------------------------


def test_the_table_of_names_is_that_of_the_classes() -> None:
    for name, module in kinds.BUILT_IN.items():
        kind = kind_of(name)
        assert (kind.kind, kind.__module__) == (name, module)
        assert not kind.options, "a kind with options of its own is found by an entry point: kinds.BUILT_IN"
        for u in (0.0, 0.5, 1.0):
            assert set(kind.knob(1000, u)) <= kind.step_settings
        assert not kind.segment_settings & kind.step_settings


@pytest.mark.parametrize("stored", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", [name for name in kinds.BUILT_IN if kind_of(name).storable])
def test_a_segment_holds_what_its_layout_says(name: str, stored: str) -> None:
    kind = kind_of(name)
    if stored == "int8" and not kind.stores_int8:
        pytest.skip("not kept so")
    data, heads = made(320), choice.HeadShape(64, 3, 2)
    for n in (320, 250):
        index = build_index(
            name, data.keys[:, :n], data.values[:, :n], queries=data.queries, segment=320, kv_dtype=stored
        )
        (segment,) = index.stored()
        held = kind_of(segment.kind)
        expected = held.layout(heads, n, index.config, stored)
        found = {key: (tuple(x.shape), x.dtype) for key, x in segment.tensors.items()}
        if name == "auto":  # while it is flat it keeps what it knows of the queries beside
            found = {key: x for key, x in found.items() if not key.startswith("moment")}
        assert found == {key: (tuple(shape), dtype) for key, (shape, dtype) in expected.items()}
        assert set(held.rows) - set(expected) <= {"value_scale"}
        size = held.bytes_for(heads, n, index.config, stored)
        assert size.total == sum(x.nbytes for key, x in segment.tensors.items() if key in found)
        assert size.segments == 1
