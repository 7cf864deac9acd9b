"""What happens when a command cannot do its work: one sentence on standard error and exit code 2; 130 for
Ctrl-C.

Used around the body of every command.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import typer

from sakuin.cli.printable import one_line, printable
from sakuin.cli.show import complain
from sakuin.errors import is_out_of_memory

_PATIENCE = 0.7
"""Seconds that an interrupted command has for tidying up before the process ends anyway."""


class Patience:
    """How many times Ctrl-C is left to the command before the process is ended from outside."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> bool:
        self.times -= 1
        return self.times >= 0


@contextmanager
def reports_errors(left: Callable[[], str] | None = None, patient: Patience | None = None) -> Iterator[None]:
    """Run a command's body: errors become a sentence and exit code 2, Ctrl-C becomes exit code 130 within a
    second.

    left : says what an interrupted command leaves. patient : whether the command deals with a Ctrl-C, in its
    own time.

    With `SAKUIN_TRACEBACK=1` the traceback is printed too.
    """
    try:
        with _interrupted_promptly(left, patient):
            yield
            _flush()  # what cannot be written is told here, not when Python ends
    except KeyboardInterrupt:
        # Everything has been tidied up on the way here. An orderly end would wait for threads, and where the
        # interrupt fell into an import Python itself would end by the signal instead of with this code.
        _give_up_output()
        _say(_interrupted(left))
        os._exit(130)
    except BrokenPipeError:  # whoever read the output has gone
        _give_up_output()
        raise typer.Exit(141) from None
    except Exception as error:
        if os.environ.get("SAKUIN_TRACEBACK") == "1":
            complain(printable(traceback.format_exc()), end="")
        _give_up_output()
        _say(sentence(error))
        raise typer.Exit(2) from None


@contextmanager
def reports_usage() -> Iterator[None]:
    """Run the parser: a wrong option or argument becomes a sentence that names it, and exit code 2."""
    try:
        try:
            yield
        finally:
            _flush()
    except (KeyboardInterrupt, typer.Abort):
        _say("Interrupted.")
        raise SystemExit(130) from None
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        # The parser prints its help itself, and ends with a code of its own.
        _give_up_output()
        raise SystemExit(141) from None
    except BrokenPipeError:
        _give_up_output()
        raise SystemExit(141) from None
    except OSError as error:  # the help or the version, into a full disk
        _give_up_output()
        _say(sentence(error))
        raise SystemExit(2) from None
    except Exception as error:
        # Typer brings a parser of its own, whose module is not public; its errors carry these.
        show, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
        if show is None or code is None:
            raise
        text = " ".join(str(show()).split()).rstrip(".")
        if not text:  # help was printed instead
            raise SystemExit(code) from None
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "sakuin"
        given = _given(error)
        rest = f"{given}; " if given or not text.endswith("?") else " "
        _say(f"{text[0].lower()}{text[1:]}{rest}`{command} --help` shows what there is.")
        raise SystemExit(code) from None


def _given(error: Exception) -> str:
    """The words of the command line that belong to the option at fault, where the parser does not name
    them."""
    options = getattr(getattr(error, "param", None), "opts", [])
    words = sys.argv[1:]
    for at, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in options:
            value = value or (words[at + 1] if at + 1 < len(words) else "")
            return "" if value in str(error) else f", got {value!r}"
    return ""


_TWICE = re.compile(r"(--(\w+)) \(\2=True\)")
_LONG = "gpu_layers|keep_for|kv_dtype|max_new_tokens|repeat_penalty|top_p"
_WORDS = "backend|device|dtype|index|offload|seed|temperature|threads|tolerance|window"
_IN_PYTHON = re.compile(rf"\b({_LONG}|{_WORDS})=('?)([\w.-]+)\2")
_QUOTED = re.compile(rf"`({_LONG}|{_WORDS})`|(?<![\w.`-])({_LONG})(?![\w.`=])")
_FIRST = re.compile(rf"(\A|, so )({_WORDS})(?= must )")
"""Words that are plain English elsewhere."""
_ALONE = re.compile(r" \((\w+=True|append_beside)\)")


def _as_options(text: str) -> str:
    """What a sentence of the library says of arguments in Python, in the command line's words."""

    def option(name: str) -> str:
        return f"--{name.replace('_', '-')}"

    text = _ALONE.sub("", _TWICE.sub(r"\1", text))
    text = _IN_PYTHON.sub(lambda found: f"{option(found[1])} {found[3]}", text)
    text = _FIRST.sub(lambda found: f"{found[1]}{option(found[2])}", text)
    return _QUOTED.sub(lambda found: option(found[1] or found[2]), text)


def sentence(error: Exception) -> str:
    """What an error says, in one line that names its kind where its author did not write for users."""
    text = _as_options(one_line(str(error)))
    if isinstance(error, ValueError | TypeError) and text:
        return text if text.endswith(".") else text + "."
    if isinstance(error, OSError) and error.strerror and not is_out_of_memory(error):
        where = f"{one_line(str(error.filename))}: " if error.filename else ""
        if error.errno == errno.EFBIG:
            limits = "than its file system or this shell's limit (`ulimit -f`) allows"
            return f"{where}a file would be larger {limits}; raise the limit."
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}."
    if is_out_of_memory(error):
        return "Memory ran out; take a smaller model or document."
    detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{detail[:500].rstrip('.')} (set SAKUIN_TRACEBACK=1 to see where)."


def _say(text: str) -> None:
    complain(f"sakuin: {one_line(text)}")


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _give_up_output() -> None:
    """Where standard output or error takes nothing more, send it nowhere: Python would complain once more
    when it closes them, and end with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def _interrupted(left: Callable[[], str] | None) -> str:
    """What is said. A thread asks what is left, since that may wait for ever: for an import that was
    interrupted."""
    said: list[str] = []

    def ask() -> None:
        with suppress(Exception):  # what is left cannot be said then; the process ends in any case
            said.append(left() if left is not None else "")

    if left is not None:
        with suppress(RuntimeError):  # Python is ending, and begins no threads
            asking = threading.Thread(target=ask, name="sakuin-left", daemon=True)
            asking.start()
            asking.join(_PATIENCE)
    return " ".join(["Interrupted.", *said])


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported there."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _handled(left: Callable[[], str] | None, patient: Patience | None) -> Iterator[None]:
    """Within, Ctrl-C is a `KeyboardInterrupt`, but in the middle of an import the end of the process: modules
    that were interrupted while they set themselves up print what they please, take it for another error, or
    pass over it."""

    def come(number: int, frame: FrameType | None) -> None:
        if _importing(frame) and (patient is None or patient.times <= 0):
            with suppress(Exception):  # such as from within a line that is being printed
                _say(_interrupted(left))
            os._exit(130)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):  # as who started us wants it
        yield
        return
    signal.signal(signal.SIGINT, come)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _interrupted_promptly(left: Callable[[], str] | None, patient: Patience | None) -> Iterator[None]:
    """End the process a moment after Ctrl-C even if one long call into torch keeps Python from noticing it.

    Python's own handler runs only between two of its instructions; the C handler writes to a pipe at once,
    and a thread that waits on it gives the main thread its moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    done = threading.Event()

    def watch() -> None:
        while byte := os.read(reader, 1):
            if byte[0] != signal.SIGINT or (patient is not None and patient()):
                continue
            if not done.wait(_PATIENCE):
                if sys.stderr is not None and sys.stderr.isatty():
                    sys.stderr.write("\x1b[?25h\n")  # a progress bar hides the cursor
                _say(_interrupted(left))
                os._exit(130)

    watcher = threading.Thread(target=watch, name="sakuin-interrupt", daemon=True)
    watcher.start()
    try:
        with _handled(left, patient):
            yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)
