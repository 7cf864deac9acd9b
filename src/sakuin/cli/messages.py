"""Where the messages of a conversation come from: lines of standard input, or a person at a terminal.

With prompt_toolkit (the extra `chat`) a person edits the line, pages through what was typed before and types
several lines; without it the terminal's own line is used. A message between lines of three quotes has several
lines in either.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sakuin.cli.show import complain
from sakuin.errors import SakuinError
from sakuin.storage.folders import cache_folder, make_folder
from sakuin.storage.whole_files import write_whole

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

MOST = 1 << 24
"""Characters of a message: standard input may be a line without end."""

MOST_HISTORY = 1 << 20
"""Bytes of the history's file; half of them are kept when there are more."""

_BLOCK = '"""'
_PROMPT, _MORE = "> ", ". "


class Messages(Protocol):
    """interactive : whether a person types them and sees the answers. editing : whether lines can be edited
    and come back."""

    interactive: bool
    editing: bool

    def read(self) -> str | None:
        """The next message, as it was typed; None at the end. `KeyboardInterrupt` at Ctrl-C."""


def messages(json: bool, history: bool) -> Messages:
    """As standard input is. history : whether what is typed may be kept in the cache folder."""
    if sys.stdin is None:
        raise SakuinError("standard input is closed; messages are read from it.")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text are told, message by message
    interactive = not json and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()
    if interactive and find_spec("prompt_toolkit") is not None:
        return Edited(history)
    return Lines(interactive)


class Lines:
    """Line by line; in a terminal with a prompt, and blocks of several lines."""

    editing = False

    def __init__(self, interactive: bool) -> None:
        self.interactive = interactive

    def read(self) -> str | None:
        line = self._line(_PROMPT)
        if line is None or not self.interactive or not line.strip().startswith(_BLOCK):
            return line
        while not _is_closed(line):
            more = self._line(_MORE)
            if more is None:
                break
            line += more
            _check_length(line)
            if not more.endswith("\n"):  # Ctrl-D in the middle of a line
                break
        return _unblocked(line)

    def _line(self, prompt: str) -> str | None:
        if self.interactive:
            complain(prompt, end="")
        line = sys.stdin.readline(MOST + 1)
        _check_length(line)
        if not line and self.interactive:
            complain("")
        return line or None


class Edited:
    """With prompt_toolkit, on standard error, so that standard output holds answers alone."""

    interactive = editing = True

    def __init__(self, history: bool) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import create_output

        output = create_output(stdout=sys.stderr)
        if hasattr(output, "enable_cpr"):
            output.enable_cpr = False  # terminals that do not answer would be waited for, and told off
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            output=output,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation=_MORE,
            enable_suspend=True,
        )

    def read(self) -> str | None:
        # asyncio, in which it waits for keys, leaves no wake-up of signals behind; `errors` needs its own.
        wake = signal.set_wakeup_fd(-1)
        try:
            line = self._session.prompt(_PROMPT, handle_sigint=False)
        except EOFError:
            complain("")
            return None
        finally:
            signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        _check_length(line)
        return _unblocked(line) if line.strip().startswith(_BLOCK) else line


def _keys() -> KeyBindings:
    """Enter ends a message, and within three quotes a line; Alt-Enter always a line. Ctrl-C gives up what is
    typed."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: Any) -> None:
        text = event.current_buffer.text
        if text.strip().startswith(_BLOCK) and not _is_closed(text):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _give_up(event: Any) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return keys


def _is_closed(text: str) -> bool:
    text = text.strip()
    return len(text) >= 2 * len(_BLOCK) and text.endswith(_BLOCK)


def _unblocked(text: str) -> str:
    text = text.strip().removeprefix(_BLOCK)
    # A blank, so that no first line of a block is taken for a command.
    return " " + text.removesuffix(_BLOCK)


def _check_length(text: str) -> None:
    if len(text) > MOST:
        raise SakuinError(f"a message has more than {MOST:,} characters; name a file that holds them.")


def _history(wanted: bool) -> History:
    """What was typed in this conversation, and where it is `wanted` and can be kept, in those before."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Kept(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError):  # a full disk must not end a conversation
                super().store_string(string.encode("utf-8", "replace").decode("utf-8"))

    if not wanted or os.environ.get("SAKUIN_HISTORY", "").lower() in ("off", "0", "no"):
        return InMemoryHistory()
    try:
        return Kept(_history_file())
    except (OSError, SakuinError):
        return InMemoryHistory()


def _history_file() -> Path:
    """The file, there and for its owner's eyes alone."""
    path = cache_folder() / "chat_history"
    make_folder(path.parent)
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(handle, 0o600)
        size = os.fstat(handle).st_size
    finally:
        os.close(handle)
    if size > MOST_HISTORY:
        rest = path.read_bytes()[-MOST_HISTORY // 2 :]
        write_whole(path, rest[max(rest.find(b"\n#"), 0) :])
    return path
