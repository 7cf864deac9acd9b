"""The first load of a file on a machine: what is right, then what is fastest, tried in another process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gguf import write

from sakuin.backends.llama_cpp import locate, trial, trial_kept
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.load import load
from sakuin.backends.llama_cpp.loaded import Options
from sakuin.backends.llama_cpp.trial_choice import FEW, LEAST, MOST, MOST_FEW, Measured, Setting, choose
from sakuin.errors import SakuinError

pytestmark = pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed")

DYING = Path(__file__).with_name("dying_child.py")
ROWS = [0, *(1 << power for power in range(LEAST.bit_length() - 1, MOST.bit_length()))]
ROWS += range(FEW + 1, MOST_FEW + 2, FEW)  # behind those that are few


@pytest.fixture(autouse=True)
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """They are switched on, and kept in a folder of the test's own; what others do here counts little."""
    monkeypatch.setattr(trial_kept, "_CALM", 5.0)
    monkeypatch.delenv(trial.VARIABLE, raising=False)
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "llama.cpp"


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return write("qwen2", tmp_path).gguf


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each process that was started had repacked weights."""
    seen: list[bool] = []
    run = trial._run

    def counted(folder: Path, header: Header, options: Options) -> Any:
        seen.append(options.repack)
        return run(folder, header, options)

    monkeypatch.setattr(trial, "_run", counted)
    return seen


def tried(path: Path, n_threads: int = 1) -> Options:
    return trial.tried(Header.read(path), Options(torch.float32, n_threads), library())


def dies(monkeypatch: pytest.MonkeyPatch, by: str, answers: int) -> None:
    monkeypatch.setattr(trial, "CHILD", (str(DYING), by, str(answers)))


def doctor(*words: str) -> str:
    command = [sys.executable, "-m", "sakuin", "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_first_load_tries_a_file_and_the_next_takes_what_was_found(
    qwen: Path, children: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sakuin"):
        model, _ = load(qwen, dtype="fp32", threads=1)
    assert f"first load of {qwen.name}" in caplog.text
    options = model.loaded.options
    assert children == [False]  # llama.cpp has no second form of fp32
    (found,) = trial_kept.kept()
    assert found.path == str(qwen.resolve())
    assert found.setting == Setting(options.repack, options.least_rows, options.few_rows)
    assert not options.repack
    assert options.least_rows in ROWS
    assert [(each.repack, each.ours, each.wrong) for each in found.measured] == [
        (False, False, ""),
        (False, True, ""),
    ]
    assert all(each.prefill_rate > 0 and each.decode_rate > 0 for each in found.measured)
    assert found.measured[1].kl < 1e-6
    again, _ = load(qwen, dtype="fp32", threads=1)
    assert children == [False]
    assert again.loaded.options == options


def test_doctor_shows_what_was_measured(trials: Path, qwen: Path) -> None:
    about = trial_kept.key(Header.read(qwen), Options(torch.bfloat16, 2), library())
    ways = (
        way(False, False, 0.0, 0.005),
        way(False, True, 0.0, 0.001),
        way(True, False, 0.0, 0.0, wrong="its process died of SIGILL"),
    )
    busy = replace(ways[0], waited=0.25)
    trial_kept.keep(trial_kept.Trial(about, Setting(False, 16, 8), (busy, *ways[1:])))
    (told,) = json.loads(doctor("--json"))["trials"]
    assert told["model"] == str(qwen.resolve())
    assert (told["least_rows"], told["few_rows"], told["repack"], told["threads"]) == (16, 8, False, 2)
    assert [way.get("prefill") for way in told["ways"]] == [pytest.approx(200), pytest.approx(1000), None]
    said = " ".join(doctor().split())
    assert f"{qwen.name} sakuin's products up to 8 rows and from 16 rows on ({library().found}, 2" in said
    assert f"{qwen.parent.name}/{qwen.name}" not in said.replace(" ", "")
    assert "llama.cpp's: prefill 200, decode 20 tokens/s" in said
    assert "llama.cpp's, repacked: its process died of SIGILL" in said
    assert "measured while others used the CPU, 25% of the time" in said


def test_doctor_counts_what_was_measured_of_what_is_no_more(trials: Path, qwen: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(qwen.read_bytes())
    ways, setting = (way(False, False, 0.0, 0.005),), Setting(False, 16, 8)
    now = trial_kept.key(Header.read(qwen), Options(torch.float32, 1), library())
    for about in (
        now,
        now | {"threads": [2, 2]},
        now | {"sakuin": "0.0.1"},
        now | {"library_files": []},
        now | {"files": [[now["files"][0][0], 1, 2]]},
        now | {"files": [[str(tmp_path / "gone.gguf"), 1, 2]]},
        now | {"machine": {"cpu": "another"}},
        trial_kept.key(Header.read(other), Options(torch.float32, 1), library()),
    ):
        trial_kept.keep(trial_kept.Trial(about, setting, ways))
    report = json.loads(doctor("--json"))
    paths = [one["model"] for one in report["trials"]]
    assert sorted(paths) == sorted([str(qwen.resolve())] * 2 + [str(other.resolve())])
    assert report["older_trials"] == 4
    report = json.loads(doctor("--json", "--model", str(qwen)))
    assert sorted(one["threads"] for one in report["trials"]) == [1, 2]
    assert report["older_trials"] == 3
    assert "4 measurements of files and versions that are others now" in " ".join(doctor().split())


def test_doctor_shows_the_latest_of_many(trials: Path, qwen: Path) -> None:
    now = trial_kept.key(Header.read(qwen), Options(torch.float32, 1), library())
    for n in range(1, 7):
        about = now | {"threads": [n, n]}
        trial_kept.keep(trial_kept.Trial(about, Setting(False, 0), (way(False, False, 0.0, 0.005),)))
        os.utime(trial_kept._file(about), (n, n))
    said = " ".join(doctor().split())
    assert said.count(qwen.name) == 4
    assert "6 threads" in said
    assert "2 threads" not in said
    assert "2 measurements more in --json" in said


def test_another_file_or_setting_is_tried_again(qwen: Path, children: list[bool], trials: Path) -> None:
    tried(qwen)
    tried(qwen, n_threads=2)
    qwen.write_bytes(qwen.read_bytes())
    tried(qwen)
    assert len(children) == 3
    assert len(trial_kept.kept()) == 3


def test_what_was_measured_on_a_busy_machine_is_measured_again_a_few_times(
    qwen: Path, children: list[bool]
) -> None:
    about = trial_kept.key(Header.read(qwen), Options(torch.float32, 1), library())
    ways = (replace(way(False, False, 0.0, 0.005), waited=9.0), way(False, True, 0.0, 0.001))
    trial_kept.keep(trial_kept.Trial(about, Setting(False, 512), ways))
    tried(qwen)
    assert children == [False]
    (again,) = trial_kept.kept()
    assert again.tries == 2
    assert again.busy < 9  # the calmer of both
    trial_kept.keep(trial_kept.Trial(about, Setting(False, 512), ways, tries=3))
    assert tried(qwen).least_rows == 512
    assert children == [False]


@pytest.mark.parametrize("damage", ["[1]", "cut"])
def test_what_is_kept_and_cannot_be_read_is_made_anew(
    qwen: Path, trials: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    header = Header.read(qwen)
    about = trial_kept.key(header, Options(torch.float32, 1), library())
    measured = Measured(False, False, short=(32, 0.1), long=(64, 0.2), decode=0.01)
    trial_kept.keep(trial_kept.Trial(about, Setting(False, 128), (measured,)))
    assert tried(qwen).least_rows == 128
    (path,) = trials.glob("*.json")
    path.write_text(path.read_text()[:-20] if damage == "cut" else damage)
    assert trial_kept.kept() == []
    found = tried(qwen)
    (kept,) = trial_kept.kept()
    assert found.least_rows == kept.setting.least_rows
    assert len(kept.measured) == 2


def test_a_folder_that_cannot_be_written_costs_time_only(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "file"))
    assert tried(qwen).least_rows in ROWS


def test_switched_off_it_starts_nothing(
    qwen: Path, children: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trial.VARIABLE, "off")
    given = Options(torch.float32, 1)
    assert trial.tried(Header.read(qwen), given, library()) is given
    assert children == []


@pytest.mark.parametrize("weight", ["output_norm.weight", "blk.1.ffn_down.weight"])
def test_weights_that_are_no_numbers_are_told_before_anything_is_read(qwen: Path, weight: str) -> None:
    tensor = Header.read(qwen).by_name[weight]
    with qwen.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(torch.full((8,), torch.nan).numpy().tobytes())
    with pytest.raises(SakuinError, match=r"qwen2-F32\.gguf gives logits that are no numbers \(NaN\)"):
        load(qwen, dtype="fp32", threads=1)
    assert trial_kept.kept() == []


@pytest.mark.parametrize(("by", "words"), [("SIGSEGV", "died of SIGSEGV"), ("SIGKILL", "was killed")])
def test_where_the_plainest_setting_kills_its_process_the_user_is_told(
    qwen: Path, monkeypatch: pytest.MonkeyPatch, by: str, words: str
) -> None:
    dies(monkeypatch, by, 0)
    with pytest.raises(SakuinError, match=words):
        tried(qwen)
    assert trial_kept.kept() == []


def test_a_setting_that_kills_its_process_is_ruled_out(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies(monkeypatch, "SIGILL", 1)
    assert tried(qwen).least_rows == 0
    (found,) = trial_kept.kept()
    assert [each.wrong for each in found.measured] == ["", "its process died of SIGILL"]


def test_repacked_weights_that_kill_their_process_stay_off(
    qwen: Path, monkeypatch: pytest.MonkeyPatch, children: list[bool]
) -> None:
    monkeypatch.setattr(trial, "may_repack", lambda *_: True)
    run = trial._run

    def second_dies(folder: Path, header: Header, options: Options) -> Any:
        if options.repack:
            dies(monkeypatch, "SIGSEGV", 0)
        return run(folder, header, options)

    monkeypatch.setattr(trial, "_run", second_dies)
    assert not tried(qwen).repack
    assert children == [False, True]
    (found,) = trial_kept.kept()
    assert found.measured[-1].repack
    assert found.measured[-1].wrong == "its process died of SIGSEGV"


def test_both_forms_of_weights_are_compared_across_processes(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "may_repack", lambda *_: True)
    tried(qwen)
    (found,) = trial_kept.kept()
    assert [(each.repack, each.ours) for each in found.measured] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert all(not each.wrong and each.kl < 1e-6 for each in found.measured)
    assert found.measured[2].spread > 1e-3  # there is something to compare


def test_a_child_that_fails_otherwise_leaves_the_plainest_settings(
    qwen: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trial, "CHILD", ("-c", "raise SystemExit('no such luck')"))
    given = Options(torch.float32, 1)
    assert trial.tried(Header.read(qwen), given, library()) == given
    assert "no such luck" in caplog.text
    assert trial_kept.kept() == []


def test_repacked_weights_are_tried_where_llama_cpp_has_them(qwen: Path) -> None:
    header = Header.read(qwen)
    packed = replace(header, tensors=tuple(replace(each, type="q4_K") for each in header.tensors))
    few = replace(header, tensors=(replace(header.tensors[-1], type="q4_K"), *header.tensors[:-1]))
    assert not trial.may_repack(header, library())
    assert not trial.may_repack(few, library())
    has_amx = library().optional("ggml_cpu_has_amx_int8")
    amx = any(flag.startswith("amx") for flag in trial.cpu_flags())
    assert trial.may_repack(packed, library()) == (not amx or (has_amx is not None and not has_amx()))


# -- what follows from figures -------------------------------------------------------------------------------


def way(
    repack: bool, ours: bool, fixed: float, row: float, decode: float = 0.05, wrong: str = ""
) -> Measured:
    """Passes that take `fixed` seconds, and `row` more for each row."""
    points = [(n, fixed + n * row) for n in (32, 256)]
    return Measured(repack, ours, wrong, points[0], points[1], decode)


def test_products_go_to_whom_they_are_faster_with_from_so_many_rows_on() -> None:
    plain = way(False, False, 0.0, 0.005)
    for fixed, least in ((0.0, 8), (0.06, 16), (0.15, 64), (0.3, 128), (5.0, 0)):
        assert choose([plain, way(False, True, fixed, 0.001)]) == Setting(False, least)
    assert choose([plain, way(False, True, 0.0, 0.006)]) == Setting(False, 0)


def test_products_of_few_rows_go_to_whom_they_are_faster_with() -> None:
    plain = replace(way(False, False, 0.0, 0.005), few=(8, 0.08))
    for decode, few, most in (
        (0.05, 0.06, 0),
        (0.03, 0.09, 1),
        (0.03, 0.05, 24),
        (0.03, 0.031, 32),
        (0.03, 0.07, 8),
    ):
        ours = replace(way(False, True, 0.08, 0.001, decode), few=(8, few))
        assert choose([plain, ours]) == Setting(False, max(32, most + 1), most)
    assert choose([plain, replace(ours, few=(0, 0.0))]) == Setting(False, 32, 0)
    reads = replace(way(False, True, 0.0, 0.006, 0.03), few=(8, 0.05))
    assert choose([plain, reads]) == Setting(False, 0, 32)


def test_what_is_wrong_is_not_chosen() -> None:
    plain, ours = way(False, False, 0.0, 0.005), way(False, True, 0.0, 0.001, wrong="it is wrong")
    assert choose([plain, ours]) == Setting(False, 0)
    assert choose([replace(plain, wrong="it is wrong"), way(False, True, 0.0, 0.001)]) is None
    repacked = way(True, False, 0.0, 0.0001, wrong="its process died of SIGSEGV")
    assert choose([plain, ours, repacked]) == Setting(False, 0)


def test_repacked_weights_must_be_worth_their_memory() -> None:
    plain = way(False, False, 0.0, 0.005)
    assert choose([plain, way(True, False, 0.0, 0.0048)]) == Setting(False, 0)
    assert choose([plain, way(True, False, 0.0, 0.003)]) == Setting(True, 0)
    ours = way(False, True, 0.0, 0.0005)
    assert choose([plain, ours, way(True, False, 0.0, 0.003)]) == Setting(False, 8)
    both = [way(True, False, 0.0, 0.005, 0.01), way(True, True, 0.0, 0.0005, 0.01)]
    assert choose([plain, ours, *both]) == Setting(True, 8)


def test_logits_that_have_nothing_to_do_with_the_plain_ones_are_far() -> None:
    assert not replace(way(False, True, 0, 1), kl=0.06, spread=3.4).is_far
    assert not replace(way(False, True, 0, 1), kl=0.067, spread=0.581).is_far  # 28 layers, as measured
    assert not replace(way(False, True, 0, 1), kl=1e-5, spread=1e-6).is_far
    assert replace(way(False, True, 0, 1), kl=2.0, spread=3.4).is_far
    assert replace(way(False, True, 0, 1), kl=float("nan"), spread=3.4).is_far


def test_what_is_kept_reads_back(trials: Path) -> None:
    about = {"files": [["/m.gguf", 1, 2]], "machine": trial_kept._machine()}
    made = trial_kept.Trial(about, Setting(True, 64), (way(True, True, 0.1, 0.2, wrong="slow"),))
    trial_kept.keep(made)
    assert trial_kept.find(about) == made
    assert trial_kept.find(about | {"more": 1}) is None
    (path,) = trials.glob("*.json")
    json.loads(path.read_text())
    trial_kept.keep(replace(made, about=about | {"machine": {"cpu": "another"}}))
    assert trial_kept.kept() == [made]
