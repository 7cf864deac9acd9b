"""Options that the commands of `sakuin eval` share, and what is made of them: the model that is measured, and
where its results lie."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli.loading import Loading
from sakuin.cli.options import DTYPES
from sakuin.errors import SakuinError
from sakuin.kinds import BUILT_IN

if TYPE_CHECKING:
    from sakuin.backends.base import Description
    from sakuin.backends.open import Choice
    from sakuin.evaluate.results import Results

Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar=DTYPES,
        help="Of the model's weights; in fp32 rounding does not blur what is measured.",
    ),
]
Configurations = Annotated[
    str,
    typer.Option(
        "--configurations",
        metavar="NAMES",
        help="Names with blanks between them: full, a preset (fast, balanced, faithful, exact) or a kind of "
        f"index ({', '.join(BUILT_IN)}), with settings or a touched share "
        "where wanted (`ivf:estimate_rest=false`, `pages@9%`).",
    ),
]
Lengths = Annotated[
    str,
    typer.Option(
        "--lengths", metavar="NUMBERS", help="Tokens of the texts, with blanks between the numbers."
    ),
]
Seeds = Annotated[
    int,
    typer.Option("--seeds", metavar="N", help="Texts of each length; for needle, of each length and depth."),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        help="Of what is written for the test: others of the same kinds for each (RULER's own is 42).",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="Where results are kept as they come, so that the same command goes on after an interruption.",
    ),
]
Pictures = Annotated[
    bool, typer.Option("--pictures/--no-pictures", help="Whether to draw PNG and SVG pictures.")
]


@dataclass(frozen=True)
class Subject:
    """The model that is measured, as the options name it. Results of one whose dtype or device differ do not
    belong together: they round differently.

    loading : the options as they were given. chosen : who runs it. used : the dtype that its option means
    here, `"fp32"` and so on. place : the kind of device that it means, `"cpu"` or `"cuda"`.
    """

    model: str
    loading: Loading
    chosen: Choice
    used: str
    place: str

    @classmethod
    def of(cls, model: str, loading: Loading) -> Subject:
        """A `SakuinError` says what is wrong with the options; a model of the hub is looked for by `load`."""
        from sakuin.dtypes import name_of

        chosen = loading.choose(model)
        place, meant = loading.place(chosen)
        return cls(model, loading, chosen, name_of(meant) or str(meant), place.type)

    @property
    def backend(self) -> str:
        """Who runs it."""
        return self.chosen.backend

    @property
    def name(self) -> str:
        """What results call it."""
        window = self.loading.window
        return self.model if window is None else f"{self.model} to {window}"

    def folder(self, out: Path, evaluation: str, more: str = "") -> Path:
        """Where its results of an evaluation lie."""
        name = Path(self.name).name.removesuffix(".gguf")
        return out / f"{evaluation}-{name}{more}".replace(" ", "-")

    def on_device(self) -> dict[str, str]:
        """The device, where it is not the CPU."""
        return {} if self.place == "cpu" else {"device": self.place}

    def marks(self, model: Any, tokenizer: Any) -> dict[str, str]:
        """What says that results belong together beside an evaluation's own: who runs the model and where,
        and the weights and the tokenizer, which the model's name alone does not tell."""
        from sakuin.backends.open import backend_of

        marks = {"weights": backend_of(model, tokenizer).fingerprint().digest[:16]} | self.on_device()
        return marks | ({} if self.backend == "transformers" else {"backend": self.backend})

    def words(self) -> dict[str, str]:
        """The options that name it, for `command`."""
        given, plain = vars(self.loading), vars(Loading())
        words = {"--model": self.model, "--dtype": self.loading.dtype}
        for name in ("window", "device", "backend", "gpu_layers", "threads"):
            if given[name] != plain[name]:
                words[f"--{name.replace('_', '-')}"] = str(given[name])
        return words

    def describe(self) -> Description:
        """The model before its weights are read."""
        return self.loading.describe(self.model, self.chosen)

    def load(self, described: Description | None = None) -> tuple[Any, Any]:
        """The model and its tokenizer; `described` : where its description is there already, window
        included."""
        return self.loading.load(self.model, described)


def goes_on() -> str:
    """What an interrupted evaluation leaves."""
    return "What has been measured is kept: the same command goes on from there."


def numbers(option: str, text: str) -> list[int]:
    """Whole numbers of at least 1 with blanks or commas between them."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise SakuinError(f"{option} takes whole numbers above 0 with blanks between them, got {text!r}.")
    return [int(word) for word in words]


def distinct(option: str, text: str) -> list[int]:
    """As `numbers`, each once: what is named twice would count twice."""
    found = numbers(option, text)
    twice = next((number for number in found if found.count(number) > 1), None)
    if twice is not None:
        raise SakuinError(f"{option} names {twice} twice: {text!r}.")
    return found


def command(name: str, words: Mapping[str, str], files: Sequence[Path] = ()) -> str:
    """The command line that gives the same results again."""
    options = [word for option, value in words.items() for word in (option, value)]
    return shlex.join(["sakuin", "eval", name, *map(str, files), *options])


def write(folder: Path, name: str, report: dict[str, Any], results: Results) -> None:
    """Keep what an evaluation found as `NAME.json` beside its results; on which machine is added to it."""
    report["machine"] = results.machine()
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
