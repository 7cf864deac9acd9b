"""The command line as a user meets it: answers, one sentence for what is wrong, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sakuin
from sakuin import RetrievalConfig
from sakuin.backends import catalogue
from sakuin.evaluate import capture
from sakuin.index import choice

FACT = "The support contract with Halden ends on: 14 March 2031."
QUESTION = "When does the support contract with Halden end?"


def run(*words: str, data: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "sakuin", *words],
        input=data,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    )


def refused(*words: str, **environment: str) -> str:
    """The sentence with which a command ends."""
    done = run(*words, **environment)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("sakuin: ")
    assert done.stderr.endswith(".\n")
    return done.stderr


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory, long_text: str) -> Path:
    """A file of some 1,200 tokens with the fact in it."""
    catalogue.get("smollm2")
    path = tmp_path_factory.mktemp("papers") / "paper.txt"
    path.write_text(f"{long_text[:2500]}\n\n{FACT}\n\n{long_text[2500:5000]}", encoding="utf-8")
    return path


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"sakuin {sakuin.__version__}\n")
    assert "torch" not in done.stderr


def test_help_and_version_import_nothing_heavy() -> None:
    script = (
        "import sys; from sakuin.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, "--help"], check=True, capture_output=True)


def test_ask_prints_the_answer_the_passage_and_the_figures_if_asked(paper: Path) -> None:
    words = ("ask", str(paper), QUESTION, "--index", "flat", "--max-new-tokens", "24")
    done = run(*words, "--figures")
    assert done.returncode == 0, done.stderr
    assert "14 March 2031" in done.stdout.splitlines()[0]
    line = paper.read_text(encoding="utf-8").splitlines().index(FACT) + 1
    assert f"paper.txt:{line}" in done.stdout
    for word in ("tokens", "prefill", "decode", "coverage", "on the host"):
        assert word in done.stdout
    assert done.stderr == ""
    plain = run(*words)
    assert plain.stdout.splitlines()[:3] == done.stdout.splitlines()[:3]
    assert not any(word in plain.stdout for word in ("prefill", "coverage", "on the host", "smollm2"))


def test_ask_json_prints_one_object_with_the_promised_names(paper: Path) -> None:
    text = paper.read_bytes()
    done = run("ask", "-", QUESTION, "--index", "flat", "--max-new-tokens", "24", "--json", data=text)
    assert done.returncode == 0, done.stderr
    got: dict[str, Any] = json.loads(done.stdout)
    promised = {
        "answer",
        "evidence",
        "model",
        "index",
        "tokens",
        "prefill_s",
        "index_s",
        "decode_ms_per_token",
    }
    assert set(got) >= promised | {"coverage", "kv_bytes"}
    assert set(got["kv_bytes"]) == {"device", "host"}
    assert (got["model"], got["index"]) == ("smollm2", "flat")
    first = got["evidence"][0]
    assert set(first) == {
        *("file", "start", "end", "line_start", "line_end", "weight", "text", "page", "heading")
    }
    assert (first["page"], first["heading"], got["notes"]) == (None, None, [])
    assert first["file"] == "standard input"
    assert text.decode()[first["start"] : first["end"]] == first["text"]


def test_ask_with_full_attention_has_no_index_to_speak_of(paper: Path) -> None:
    done = run("ask", str(paper), QUESTION, "--index", "full", "--max-new-tokens", "24", "--json")
    got = json.loads(done.stdout)
    assert "14 March 2031" in got["answer"]
    assert (got["index"], got["coverage"], got["evidence"]) == ("full", None, [])


def test_ask_says_what_auto_chose(paper: Path) -> None:
    words = ("ask", str(paper), QUESTION, "--index", "auto", "--max-new-tokens", "24")
    got = json.loads(run(*words, "--preset", "fast", "--json").stdout)
    assert (got["index"], got["coverage"], got["index_s"] > 0) == ("flat", 1.0, True)
    assert "flat (chosen by auto)" in run(*words, "--figures").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask", "a.txt", "Why?", "--tolerance", "abc"], "'--tolerance': Input should be a valid number"),
        (
            ["ask", "a.txt", "Why?", "--tolerance", "abc"],
            "got 'abc'; `sakuin ask --help` shows what there is.",
        ),
        (["ask", "a.txt", "Why?", "--max-new-tokens=3.5"], "got '3.5'"),
        (["ask"], "missing argument 'FILE… QUESTION'"),
        (["--frob"], "no such option: --frob"),
        (["frob"], "no such command 'frob'"),
        (["doctor", "--model", "no-such-model-at-all"], "there is no model 'no-such-model-at-all'"),
    ],
)
def test_what_the_parser_refuses_is_one_sentence_too(words: list[str], said: str) -> None:
    assert said in refused(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--index", "sketch", "--preset", "exact"], "--preset exact means --index flat"),
        (["--preset", "exact", "--tolerance", "2"], "--tolerance and other presets do not change"),
        (["--index", "flat", "--preset", "fast"], "--preset fast means --index sketch"),
        (["--index", "auto", "--preset", "exact"], "--preset exact means --index flat, got --index auto"),
    ],
)
def test_options_that_contradict_each_other_are_refused(paper: Path, words: list[str], said: str) -> None:
    assert said in refused("ask", str(paper), QUESTION, *words)


def test_only_a_short_text_is_said_to_have_no_index(paper: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text(FACT, encoding="utf-8")
    said = "none: the text is short enough"
    assert said in run("ask", str(short), QUESTION, "--max-new-tokens", "1", "--figures").stdout
    assert said not in run("ask", str(paper), QUESTION, "--max-new-tokens", "1", "--figures").stdout


def test_a_reader_that_goes_away_ends_ask_quietly(paper: Path) -> None:
    script = (
        f'"{sys.executable}" -m sakuin ask "$0" "$1" --index flat --max-new-tokens 24 | head -1; '
        'exit "${PIPESTATUS[0]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, str(paper), QUESTION], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (141, "")
    assert "14 March 2031" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.txt", "Why?"], "there is no file nothing.txt"),
        (["PAPER"], "at least one file and then the question"),
        (["PAPER", "PAPER"], "the last word must be the question"),
        (["-", "-", "Why?"], "once only"),
        (["PAPER", "Why?", "--tolerance", "nan"], "tolerance must be a finite number of at least 0, got nan"),
        (["PAPER", "Why?", "--tolerance", "-1"], "tolerance must be a finite number of at least 0, got -1"),
        (
            ["PAPER", "Why?", "--index", "hnsw"],
            "must be sketch, flat, auto, ivf, graph, topk, pages, streaming or full, got 'hnsw'",
        ),
        (["PAPER", "Why?", "--index", "topk", "--tolerance", "2"], "does not know a tolerance"),
        (
            ["PAPER", "Why?", "--preset", "best"],
            "preset must be one of fast, balanced, faithful, exact, got 'best'",
        ),
        (["PAPER", "Why?", "--index", "full", "--tolerance", "1"], "leave them out"),
        (["PAPER", "Why?", "--max-new-tokens", "0"], "at least 1, got 0"),
        (["PAPER", "Why?", "--dtype", "int3"], "'int3'"),
        (["PAPER", "Why?", "--model", "no-such-model"], "there is no model 'no-such-model'"),
        (["PAPER", "Why?", "--encoding", "klingon"], "no text encoding named 'klingon'"),
        (["PAPER", " "], "question is empty"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(paper: Path, words: list[str], said: str) -> None:
    assert said in refused("ask", *[str(paper) if word == "PAPER" else word for word in words])


def test_a_file_in_another_encoding_is_refused_and_then_read(tmp_path: Path) -> None:
    path = tmp_path / "memo.txt"
    path.write_bytes("暗証番号は4182です。これは秘密のメモである。".encode("cp932"))
    assert "it looks like cp932: pass --encoding cp932" in refused("ask", str(path), "番号は?")
    done = run("ask", str(path), "番号は?", "--encoding", "cp932", "--max-new-tokens", "4", "--json")
    assert done.returncode == 0, done.stderr


def test_a_model_that_is_not_fetched_yet_says_how(paper: Path, tmp_path: Path) -> None:
    assert "`sakuin models get smollm2`" in refused("ask", str(paper), "Why?", SAKUIN_CACHE=str(tmp_path))


def test_too_little_memory_is_said_with_figures(paper: Path) -> None:
    script = (
        "import resource, sys\n"
        "import torch, transformers.models.llama.modeling_llama\n"
        "used = int(next(l for l in open('/proc/self/status') if l.startswith('VmData')).split()[1]) << 10\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + (200 << 20),) * 2)\n"
        "from sakuin.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "ask", str(paper), "Why?"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "needs about" in done.stderr
    assert "of this process's limit" in done.stderr


def test_models_list_and_get_agree_on_what_is_here() -> None:
    path = catalogue.get("smollm2")
    listed = {entry["name"]: entry["path"] for entry in json.loads(run("models", "list", "--json").stdout)}
    assert listed["smollm2"] == str(path)
    got = json.loads(run("models", "get", "smollm2", "--json").stdout)
    assert got == {"name": "smollm2", "path": str(path), "was_here": True}
    assert "the names are" in refused("models", "get", "gpt-9")


def test_doctor_says_what_this_machine_gives() -> None:
    report = json.loads(run("doctor", "--model", "smollm2", "--json").stdout)
    assert report["kernel"] in report["kernels"]
    assert len(report["openmp"]) <= 1  # two OpenMP runtimes would fight over the cores
    assert report["fits"]["window"] == 8192
    assert report["fits"]["tokens"]["sketch"] > 0
    assert set(report["extras"]) == {"gguf", "eval", "documents", "chat", "server", "cluster"}
    (chosen,) = report["auto"]
    assert (chosen["head_dim"], chosen["group_size"], chosen["n_kv_heads"]) == (64, 3, 3)
    assert chosen["sketch_from"] == choice.HeadShape(64, 3, 3).sketch_from(
        RetrievalConfig(), chosen["kv_dtype"]
    )
    assert (chosen["segment"], chosen["sketch_bits"], chosen["code_bits"]) == (4096, 1.25, 3)
    forced = json.loads(run("doctor", "--json", SAKUIN_ISA="portable").stdout)
    assert forced["kernel"] == "portable"
    assert [each["head_dim"] for each in forced["auto"]] == [64, 128, 256]
    assert (report["fits"]["window"], report["fits"]["own_window"]) == (8192, 8192)
    shown = run("doctor").stdout
    assert "kernel" in shown
    assert "where a model has 8 KV heads of 128 numbers" in " ".join(shown.split())


def test_doctor_takes_a_longer_window() -> None:
    catalogue.get("smollm2")
    done = run("doctor", "--model", "smollm2", "--window", "16384")
    said = " ".join(done.stdout.split())
    assert "smollm2, run by llama.cpp" in said
    assert "16,384 tokens by YaRN, 8,192 of its own, question and answer included" in said
    assert "window must be a whole number of at least 8,192 tokens" in refused(
        "doctor", "--model", "smollm2", "--window", "512"
    )
    assert "name the model too (--model)" in refused("doctor", "--window", "16384")


def shown_until(screen: int, wanted: str) -> str:
    """What a process has shown on its terminal when it first shows `wanted`, or has ended."""
    shown = b""
    while wanted.encode() not in shown:
        try:
            shown += os.read(screen, 1 << 16)
        except OSError:  # its end is closed
            break
    return shown.decode()


def maps_until(wanted: str, process: subprocess.Popen[str]) -> None:
    """Wait until a process has a file of this name in its memory, or has ended."""
    while process.poll() is None and wanted not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)


@pytest.mark.parametrize("moment", ["the weights are read", "the document is read"])
def test_ctrl_c_ends_it_within_a_second_and_leaves_nothing(
    moment: str, tmp_path: Path, long_text: str
) -> None:
    path = tmp_path / "paper.txt"
    path.write_text(long_text[:24_000], encoding="utf-8")
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sakuin", "ask", str(path), QUESTION, "--index", "flat"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm"},
    )
    os.close(terminal)
    err = ""
    if moment == "the weights are read":
        maps_until(catalogue.get("smollm2").name, process)
    else:
        err = shown_until(screen, "reading")
        assert "reading" in err
    process.send_signal(signal.SIGINT)
    start = time.perf_counter()
    err += shown_until(screen, "nothing that is ever shown")
    out, _ = process.communicate(timeout=60)
    took = time.perf_counter() - start
    os.close(screen)
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    assert (
        took < 2.0
    )  # a second, as the docs promise, and one more for a machine that is busy with other tests
    # torch makes an empty folder for its compiler when it is imported
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith("torchinductor")] == ["paper.txt"]


class TestBench:
    def test_a_trace_is_measured_as_a_table_and_as_json(
        self, tmp_path: Path, smollm2: tuple[Any, Any]
    ) -> None:
        trace = capture(*smollm2, 1500, (26,), sink=64, recent=128)
        trace.save(tmp_path / "trace.safetensors")
        done = run("bench", "index", "--trace", str(tmp_path / "trace.safetensors"), "--json")
        assert done.returncode == 0, done.stderr
        methods = {row["method"]: row for row in json.loads(done.stdout)["methods"]}
        assert methods["flat"]["running"] < 1e-4 < methods["sketch"]["running"]
        done = run("bench", "index", "--trace", str(tmp_path / "trace.safetensors"), "--tokens", "4096")
        assert "4,096 offloaded tokens" in done.stdout
        assert "sink and recent" in done.stdout

    def test_search_is_measured_as_a_table_and_as_json(
        self, tmp_path: Path, smollm2: tuple[Any, Any]
    ) -> None:
        trace = str(tmp_path / "trace.safetensors")
        capture(*smollm2, 1500, (26,), sink=64, recent=128).save(trace)
        done = run("bench", "search", "--trace", trace, "--k", "10", "--no-peers", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["k"] == 10
        assert {row["method"] for row in found["methods"]} == {"flat", "sketch", "ivf", "graph"}
        assert found["methods"][0]["running"] == 1.0
        done = run("bench", "search", "--trace", trace, "--tokens", "2048", "--no-peers")
        assert done.returncode == 0, done.stderr
        assert "Recall@100 over 2,048 offloaded tokens" in done.stdout
        assert "candidates 0.16" in done.stdout
        assert "k must be a whole number" in refused("bench", "search", "--trace", trace, "--k", "0")

    def test_what_is_wrong_is_said_in_a_sentence(self, tmp_path: Path) -> None:
        assert "there is no trace" in refused("bench", "search", "--trace", str(tmp_path / "none"))
        assert "there is no trace" in refused("bench", "index", "--trace", str(tmp_path / "none"))
        assert "a trace of -5 tokens leaves too few" in refused("bench", "index", "--length", "-5")
        assert "there is no folder" in refused("bench", "index", "--save", str(tmp_path / "none" / "trace"))
        (tmp_path / "cut").write_bytes(b"no trace")
        assert "is damaged" in refused("bench", "index", "--trace", str(tmp_path / "cut"))
