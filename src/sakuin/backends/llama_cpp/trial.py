"""The first load of a file on a machine: which settings are right, and which of them is the fastest.

llama.cpp's repacked weights gave NaN on one machine and killed the process on another, and who multiplies
faster, from how many rows on, differs between machines and files. So the file is tried once, in a process of
its own: a short pass of prefill and a few steps for each way to run it. What was found is kept
(`sakuin.backends.llama_cpp.trial_kept`) for the file, the library and the machine. Called by
`sakuin.backends.llama_cpp.load`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sakuin.backends.llama_cpp import trial_kept
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import Library
from sakuin.backends.llama_cpp.loaded import Options
from sakuin.backends.llama_cpp.trial_choice import Measured, choose
from sakuin.backends.llama_cpp.trial_kept import Trial
from sakuin.errors import SakuinError
from sakuin.machine import children
from sakuin.machine.cpu import cpu_flags
from sakuin.machine.memory import available

VARIABLE = "SAKUIN_LLAMA_TRIAL"
"""`off` leaves trials out: settings are then those that are right everywhere, whatever their speed."""

CHILD = ("-m", "sakuin.backends.llama_cpp.trial_child")
"""What Python is told to run."""

_log = logging.getLogger("sakuin.trial")

_REPACKED = {"q4_0", "q4_K", "q2_K", "iq4_nl", "mxfp4"}
_REPACKED_ON_ARM = {"q5_K", "q6_K", "q8_0", "q1_0"}
"""Types of weights that llama.cpp has a second form of."""
_MATTERS = 0.25
"""Share of a file's bytes in such types from which on it is worth a second process."""
_BYTES_A_SECOND = 20e6
"""A file that is read from a disk that is slow, and computed slowly: what a trial may take."""


@dataclass(frozen=True)
class _Ended:
    """measured : what a child printed. error : that llama.cpp cannot load the file, in a sentence. end : why
    the child did not end well, as the end of a sentence. killed : by a signal."""

    measured: list[Measured]
    error: str
    end: str
    killed: bool


def tried(header: Header, options: Options, library: Library) -> Options:
    """The options with the settings for this file, library and machine; the first call takes seconds.

    Raises `SakuinError` where the plainest setting gives logits that are no numbers, or kills its process.
    """
    if os.environ.get(VARIABLE, "").lower() in ("off", "0", "no") or not sys.executable:
        return options
    about = trial_kept.key(header, options, library)
    found = trial_kept.find(about)
    if found is None or not found.is_final:
        with trial_kept.in_turn():
            now = trial_kept.find(about)
            # Another process may have measured it meanwhile.
            found = _trial(header, options, library, about, now) if now is None or now == found else now
    if found is None:
        return options
    return replace(options, **asdict(found.setting))


def _trial(
    header: Header, options: Options, library: Library, about: dict[str, Any], before: Trial | None
) -> Trial | None:
    """Try the file and keep what was found; None where nothing was. before : what was found on a machine that
    others kept busy."""
    _log.info("first load of %s on this machine: measuring how it runs fastest, once", header.path.name)
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="sakuin-trial-") as name:
        for repack in (False, True) if may_repack(header, library, options.gpu_layers) else (False,):
            ended = _run(Path(name), header, replace(options, repack=repack))
            measured += ended.measured
            if repack:
                continue
            _check_plain(header, library, ended)
            if not ended.measured:
                _log.warning(
                    "%s could not be tried: %s; the plainest settings are used", header.path, ended.end
                )
                return before
    setting = choose(measured)
    if setting is None:
        return before
    trial = Trial(about, setting, tuple(measured))
    if before is not None:
        calmest = min(trial, before, key=lambda each: each.busy)
        trial = replace(calmest, tries=before.tries + 1)
    for each in measured:
        if each.wrong:
            _log.info("%s with %s: %s", header.path.name, _words(each), each.wrong)
    trial_kept.keep(trial)
    return trial


def _words(way: Measured) -> str:
    who = "sakuin's products" if way.ours else "llama.cpp's own products"
    return f"{who} and repacked weights" if way.repack else who


def may_repack(header: Header, library: Library, gpu_layers: int = 0) -> bool:
    """Whether repacked weights can be tried: where they make a difference, fit beside the file, and the
    library has no kernels for AMX on a CPU that has it. What lies on a GPU is not repacked.

    Those kernels set up the CPU's tiles once a thread, and torch's products on the same thread take them
    away: the next pass dies.
    """
    if gpu_layers < 0:
        return False
    types = _REPACKED if "avx2" in cpu_flags() else _REPACKED | _REPACKED_ON_ARM
    nbytes = sum(tensor.nbytes for tensor in header.tensors if tensor.type in types)
    if nbytes < _MATTERS * header.nbytes:
        return False
    has_amx = library.optional("ggml_cpu_has_amx_int8")
    if any(flag.startswith("amx") for flag in cpu_flags()) and (has_amx is None or has_amx()):
        return False
    return available().bytes > 2 * header.nbytes + (1 << 30)


def _check_plain(header: Header, library: Library, ended: _Ended) -> None:
    """Raise `SakuinError` where the plainest way to run the file does not work."""
    path, other = header.path, "take the backend transformers"
    if ended.error:
        raise SakuinError(ended.error)
    if not ended.measured and ended.killed:
        raise SakuinError(
            f"{path} was tried in a process of its own, with {library.found}, which {ended.end}: install "
            f"another llama.cpp package, or {other} ({VARIABLE}=off leaves the trial out)."
        )
    if ended.measured and ended.measured[0].wrong:
        raise SakuinError(
            f"{path} gives logits that are no numbers (NaN) with {library.found}: the file's weights are "
            f"damaged, or this library cannot run it; fetch the file again, or {other}."
        )


def _run(folder: Path, header: Header, options: Options) -> _Ended:
    """One child: the file with repacked weights or without, products by llama.cpp and by sakuin."""
    given = asdict(options) | {"dtype": str(options.dtype).removeprefix("torch.")}
    request = {"path": str(header.path), "torch_threads": torch.get_num_threads(), "options": given}
    (folder / "request.json").write_text(json.dumps(request))
    end = ""
    with (folder / "said").open("w+b") as said:
        child = subprocess.Popen(
            children.python(*CHILD, str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            # Where ggml ends the process it would have a debugger look at it first, for half a minute.
            env=children.environment(Path(__file__).parents[3], GGML_NO_BACKTRACE="1"),
        )
        limit = 60 + header.nbytes / _BYTES_A_SECOND
        try:
            printed, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            child.kill()
            printed, _ = child.communicate()
            end = f"took more than {limit:.0f} s"
        except BaseException:
            child.kill()
            child.wait()
            raise
        said.seek(0)
        end = end or _how(child.returncode, said.read())
    return _ended(printed, options.repack, end, killed=child.returncode < 0 and not end.startswith("took"))


def _how(code: int, said: bytes) -> str:
    """How a process ended, as the end of a sentence; "" where well."""
    if code >= 0:
        lines = said.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"]
        return f"failed: {lines[-1]}" if code else ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "was killed (SIGKILL), as the system does where memory runs out"
    return f"died of {name}"


def _ended(printed: bytes, repack: bool, end: str, killed: bool) -> _Ended:
    measured, error = [], ""
    for line in printed.decode("utf-8", "replace").splitlines():
        try:
            told = json.loads(line)
            error = error or str(told.pop("error", ""))
            if told:
                measured.append(Measured.read(told))
        except (ValueError, TypeError, LookupError, AttributeError):
            continue  # a line that the end of the process cut off
    if end and (measured or repack) and len(measured) < 2:
        # The first way without an answer is the one that ended it.
        measured.append(Measured(repack, bool(measured), wrong=f"its process {end}"))
    return _Ended(measured, error, end, killed)
