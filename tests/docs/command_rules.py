"""How the commands of a page are run: nearly all as they are written. `RULES` are the exceptions, each with
its reason. What is not run is checked: that there is such a command, target or module, and that it has
these options.

Run as a program this stands in for a command on a page, under the command's name (`page_reader` puts it on
the path): `python command_rules.py sakuin ask contract.txt …`.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SITE = "SAKUIN_PAGE_SITE"
"""Names the folder into which `pip install FOLDER` installs."""
JOURNAL = "SAKUIN_PAGE_JOURNAL"
"""Names the file in which each command that was not run is noted."""

MESSAGE = "What is the yearly fee?\n"
"""What a reader types into `sakuin chat`, before Ctrl-D."""

SAKUIN = [sys.executable, "-P", "-c", "from sakuin.cli import main; main()"]
_MODULES = {"pytest": "pytest", "mypy": "mypy", "lint-imports": "importlinter"}
STOOD_IN_FOR = ("sakuin", "python", "python3", "pip", "make", *_MODULES)


@dataclass(frozen=True)
class Rule:
    """An exception. command : what commands it is for. reason : why they are not run as they are. do : what
    is done instead; raises ValueError where the command is wrong, returns the exit code."""

    command: str
    reason: str
    do: Callable[[list[str]], int]


def parsed(words: list[str]) -> int:
    """Read a command of sakuin's with its options, and do not call it."""
    import typer

    from sakuin.cli import app

    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            raise ValueError(f"there is no command {shlex.join(words)!r}")
        command, *rest = command.commands[rest[0]], *rest[1:]
    command.make_context(words[0], list(rest))  # it empties what it is given
    files = [word for word in rest if re.fullmatch(r"[\w./-]+\.(txt|md|log|pdf|docx|gguf)", word)]
    if missing := [file for file in files if not os.path.exists(file)]:
        raise ValueError(f"there is no {missing}")
    return 0


def is_target(words: list[str]) -> int:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    unknown = [word for word in words[1:] if word not in targets and "=" not in word]
    if unknown:
        raise ValueError(f"the Makefile has no target {unknown}")
    return 0


def is_benchmark(words: list[str]) -> int:
    """Whether there is the benchmark, and it, its parts or what all share know these options."""
    module = (ROOT / words[2].replace(".", "/")).with_suffix(".py")
    parts = [module, *module.parent.glob(f"{module.stem}_parts/*.py"), ROOT / "benchmarks/common.py"]
    known = set(re.findall(r'"(--[a-z-]+)"', "".join(path.read_text(encoding="utf-8") for path in parts)))
    if unknown := {word for word in words[3:] if word.startswith("-")} - known:
        raise ValueError(f"{words[2]} has no {sorted(unknown)}")
    return 0


def is_harness(words: list[str]) -> int:
    """Whether lm-eval's own command line, with sakuin in it, has these options."""
    command = [sys.executable, "-m", words[2], words[3], "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    missing = [word for word in words[4:] if word.startswith("-") and word not in helped]
    if missing:
        raise ValueError(f"lm-eval has no {missing}")
    return 0


def is_extra(words: list[str]) -> int:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for word in words[2:]:
        found = re.fullmatch(r"sakuin(?:\[([\w,]+)\])?", word)
        if found is None or not set((found[1] or "all").split(",")) <= set(extras):
            raise ValueError(f"sakuin has no {word}")
    return 0


def install_folder(words: list[str]) -> int:
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--target", os.environ[SITE]]
    folders = [word for word in words[2:] if not word.startswith("-")]
    return subprocess.call([sys.executable, "-m", "pip", "install", *offline, *folders])


def is_tool(words: list[str]) -> int:
    if find_spec(_MODULES[words[0]]) is None:
        raise ValueError(f"{words[0]} is not in the environment")
    missing = [word for word in words[1:] if "/" in word and not (ROOT / word).exists()]
    if missing:
        raise ValueError(f"there is no {missing}")
    return 0


def followed(words: list[str]) -> int:
    """Follow a file until what it holds has been read, then end it as Ctrl-C does."""
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # the page runs it in the background, and ends it itself
        os.execv(SAKUIN[0], [*SAKUIN, *words[1:]])
    with subprocess.Popen([*SAKUIN, *words[1:]], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            sys.stderr.write(line)
            if "Ctrl-C" in line:
                child.send_signal(signal.SIGINT)
    return 0 if child.returncode == 130 else child.returncode


def served(words: list[str]) -> int:
    """Serve at a free port until it says that it does, then end it as Ctrl-C does."""
    return followed([*words, "--port", "0"])


def talked(words: list[str]) -> int:
    """Talk where a reader would type; a page that pipes messages into it is run as it is."""
    typing = os.path.samestat(os.fstat(0), os.stat(os.devnull))
    given = {"input": MESSAGE, "text": True} if typing else {}
    return subprocess.run([*SAKUIN, *words[1:]], check=False, **given).returncode


RULES = (
    Rule(r"sakuin eval .*", "evaluations take minutes to hours; tests/evaluate runs small ones", parsed),
    Rule(r"sakuin contexts append .*--follow.*", "it stays until Ctrl-C", followed),
    Rule(r"sakuin serve\b.*", "it stays until Ctrl-C", served),
    Rule(r"sakuin chat\b.*", "somebody types", talked),
    Rule(r"sakuin serve\b.*", "it stays until Ctrl-C", parsed),
    Rule(r"pip install (-e )?\..*", "what is tested must stay as it is; a folder takes it", install_folder),
    Rule(r"pip install .*", "a package index is asked for what is there already", is_extra),
    Rule(r"make .*", "it makes the environment that this runs in, or takes minutes to hours", is_target),
    Rule(
        r"python -m benchmarks\.(?!.*--(help|plan)\b).*", "benchmarks take minutes to hours", is_benchmark
    ),
    Rule(r"python -m sakuin\.evaluate\.harness run .*", "lm-eval takes minutes", is_harness),
    Rule(r"(pytest|mypy|lint-imports)\b.*", "the tests and checks that this is one of", is_tool),
)  # fmt: skip


def rule_for(words: list[str]) -> Rule | None:
    return next((rule for rule in RULES if re.fullmatch(rule.command, " ".join(words), re.DOTALL)), None)


def plain(words: list[str]) -> list[str]:
    """`python -m sakuin ask` is `sakuin ask`, and so for pip and the tools."""
    words = ["python" if words[0] == "python3" else words[0], *words[1:]]
    return words[2:] if words[:2] == ["python", "-m"] and words[2] in STOOD_IN_FOR else words


def main(words: list[str]) -> int:
    words = plain(words)
    rule = rule_for(words)
    if rule is None:
        run = {"sakuin": SAKUIN, "python": [sys.executable]}.get(words[0])
        if run is None:
            print(f"{shlex.join(words)} has no rule, and would change what is tested", file=sys.stderr)
            return 2
        os.execv(run[0], [*run, *words[1:]])
    if rule.do not in (followed, served, talked, install_folder):
        with open(os.environ[JOURNAL], "a", encoding="utf-8") as journal:
            journal.write(f"{shlex.join(words)}: {rule.reason}\n")
    try:
        return rule.do(words)
    except Exception as error:
        print(f"{shlex.join(words)} is not run ({rule.reason}), and wrong: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
