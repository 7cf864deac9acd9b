"""sakuin as a model of `lm-eval` (lm-evaluation-harness), in which language models are compared.

Importing this module registers the model `sakuin` there, so that lm-eval's tasks run with any configuration
of ours. `sakuin.evaluate.harness` is lm-eval's own command line with that model in it, `harness_runs` puts
configurations side by side. Our tasks, which need no download, are in `harness_tasks`.

A prompt is prefilled, exactly, and what follows is decoded through the index: the answer that is generated,
the continuation whose likelihood is asked for, and of a text whose perplexity is asked for, everything.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from sakuin.backends.open import backend_of, load
from sakuin.context.generate import exact_above, forced, prefill
from sakuin.context.sampling import Sampling
from sakuin.errors import SakuinError
from sakuin.evaluate.configurations import Configuration
from sakuin.evaluate.configurations import configuration as named
from sakuin.evaluate.decode import decode_answer
from sakuin.evaluate.results import Results

try:
    from lm_eval import utils
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
except ImportError as error:
    raise SakuinError(
        f"the harness needs the package lm-eval ({error}); `pip install 'sakuin[eval]'` brings it."
    ) from None

TASKS = Path(__file__).parent / "harness_tasks"
"""The folder of our own tasks, for lm-eval's `include_path`."""

_FULL_STEP = 64
"""Positions of one pass of a scored continuation with full attention; its logits are whole vocabularies."""

_log = logging.getLogger(__name__)


@register_model("sakuin")
class SakuinLM(TemplateLM):  # type: ignore[misc]
    """A model with one configuration of sakuin, for lm-eval.

    pretrained : what `sakuin.load` takes, or a model that it gave, then with `tokenizer`.
    configuration : a name as in `sakuin eval`: `full`, a preset, or a kind of index with settings
        (`ivf:budget=0.1`), but not at a share, for which each text would have to be decoded many times.
    dtype, window : as in `sakuin.load`.
    max_length : tokens of prompt and answer; None is the model's window. Longer prompts lose their start, as
        in lm-eval's own models, and a warning says so.
    max_gen_toks : tokens of an answer where the task does not say.
    device : where the model is loaded to; lm-eval says `cuda` where nobody else does, which without a GPU is
        the CPU here as it is for lm-eval's own models.
    results : where responses are kept as they come; what it holds already is not computed again. Their keys
        hold everything that a response depends on but the model, which is what its `about` is for.
    say : is told at which request it is, in place of a progress bar.
    batch_size : lm-eval hands it to every model; requests are answered one by one.
    """

    def __init__(
        self,
        pretrained: Any = "smollm2",
        configuration: str | Configuration = "balanced",
        dtype: str = "auto",
        window: int | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        tokenizer: Any = None,
        batch_size: int | str | None = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        results: Results | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.configuration = check_configuration(
            named(configuration) if isinstance(configuration, str) else configuration
        )
        if str(batch_size or 1) not in ("1", "auto"):
            raise SakuinError(
                f"sakuin answers requests one by one: batch_size must be 1, got {batch_size!r}."
            )
        if isinstance(pretrained, str | Path):
            self.model, self.tokenizer = load(pretrained, dtype, _place(device), window)
        elif tokenizer is None:
            raise SakuinError("give the tokenizer beside a model that is loaded already.")
        else:
            self.model, self.tokenizer = pretrained, tokenizer
        self.backend = backend_of(self.model, self.tokenizer)
        window = self.backend.shape.window
        if max_length is not None and window is not None and max_length > window:
            raise SakuinError(
                f"max_length must be at most the {window:,} tokens that the model reads, got {max_length:,}; "
                "window makes it longer by YaRN."
            )
        self.results, self.say = results, say
        self._device = self.backend.device
        self._max_length = max_length or window
        self.max_gen_toks = max_gen_toks
        self._cut = False

    # -- what lm-eval asks of a model ------------------------------------------------------------------------

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer."""
        if self._max_length is None:
            raise SakuinError("the model does not state how many tokens it reads; give max_length.")
        return int(self._max_length)

    @property
    def eot_token_id(self) -> int:
        vocabulary = self.backend.vocabulary
        end = vocabulary.end_token
        return min(vocabulary.end_tokens) if end is None else end

    @property
    def prefix_token_id(self) -> int:
        first = self.backend.vocabulary.begin_token
        return self.eot_token_id if first is None else first

    @property
    def tokenizer_name(self) -> str:
        name = self.backend.source or getattr(self.tokenizer, "name_or_path", "")
        return str(name).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """`chat_history` as a prompt: up to the answer's beginning, or to the end of its last message, which
        the answer then goes on with."""
        text = self.backend.vocabulary.render(chat_history, answer=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"]
        at = text.rindex(last.strip())
        whole = last.lstrip()
        return text[: at + len(whole if text.startswith(whole, at) else last.strip())]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens; unless it is said otherwise, begun as the tokenizer begins a text, and never so twice."""
        vocabulary = self.backend.vocabulary
        made = vocabulary.special(string)
        if add_special_tokens is None:
            add_special_tokens = not made or made[0] != vocabulary.begin_token
        return [*vocabulary.beginning, *made] if add_special_tokens else made

    def tok_decode(self, tokens: Sequence[int], **_: Any) -> str:
        """Their text, without special tokens."""
        return self.backend.vocabulary.decode(tokens)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """An answer to each prompt, up to the first of the task's stop sequences."""
        return [self._generated(*request.args) for request in self._shown(requests, disable_tqdm)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation of a prompt, and whether it is the likeliest."""
        hidden = disable_tqdm or self.say is not None
        return list(super().loglikelihood(requests, disable_tqdm=hidden))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, every token decoded."""
        found = []
        for request in self._shown(requests, disable_tqdm):
            (text,) = request.args
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            total = 0.0
            for window in windows:
                before, scored = utils.make_disjoint_window(window)
                total += self._likelihood(before, scored, functools.partial(self._prefilled, before))[0]
            found.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return found

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether each of its tokens is the likeliest. Prompts that
        are asked about more than once are prefilled once."""
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i][1]), requests[i][1]))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for before, same in groupby(self._shown(order, disable_tqdm), key=lambda i: self._kept(requests[i])):
            read = functools.cache(functools.partial(self._prefilled, list(before)))
            for i in same:
                found[i] = self._likelihood(before, requests[i][2], read)
                self.cache_hook.add_partial("loglikelihood", requests[i][0], found[i])
        return found

    # -- inside ----------------------------------------------------------------------------------------------

    def _shown(self, items: Sequence[Any], hidden: bool) -> Iterator[Any]:
        """The items one by one, with a progress bar or `say`."""
        if self.say is None:
            from tqdm import tqdm

            yield from tqdm(items, disable=hidden or None, desc="sakuin")
            return
        for number, item in enumerate(items, 1):
            self.say(f"request {number:,} of {len(items):,}")
            yield item

    def _kept(self, request: tuple[tuple[str, str], list[int], list[int]]) -> tuple[int, ...]:
        """What is kept of a prompt before a continuation; the last token of that is never read."""
        _, before, continuation = request
        most = self.max_length + 1 - len(continuation)
        if most < 1:
            raise SakuinError(
                f"a continuation of {len(continuation):,} tokens is longer than the {self.max_length:,} that "
                "are allowed."
            )
        return tuple(self._shortened(before, most))

    def _shortened(self, ids: list[int], most: int) -> list[int]:
        if len(ids) > most and not self._cut:
            self._cut = True
            _log.warning(
                "a prompt of %d tokens loses its start, since only %d fit; so may others.", len(ids), most
            )
        return ids[-most:]

    def _prefilled(self, ids: Sequence[int]) -> Any:
        """A cache that holds all of `ids` but the last."""
        config = self.configuration.config
        cache = self.backend.new_cache(config)
        prefill(self.backend, cache, ids[:-1])
        if (retrieval := self.backend.retrieval(cache)) is not None:
            retrieval.seal()
        return cache

    def _likelihood(
        self, before: Sequence[int], continuation: Sequence[int], read: Callable[[], Any]
    ) -> tuple[float, bool]:
        """`_scored` after `before`, of which `read` gives the cache, unless it is among the results."""
        total, greedy = self._once(
            "likelihood",
            [list(before), list(continuation)],
            lambda: self._scored(read(), before[-1], continuation),
        )
        return total, greedy

    def _once(self, what: str, asked: list[Any], respond: Callable[[], Any]) -> Any:
        """A response to what is asked, in JSON's types, from the results where they hold it."""
        if self.results is None:
            return respond()
        config = self.configuration.config
        state = json.dumps([asked, None if config is None else config.as_dict()], sort_keys=True)
        key = f"{what} {self.configuration.kind} {hashlib.sha256(state.encode()).hexdigest()[:20]}"
        if key not in self.results:
            self.results.add(key, respond())
        return self.results[key]

    def _scored(self, start: Any, last: int, continuation: Sequence[int]) -> tuple[float, bool]:
        """Log-likelihood of a continuation after `last`, decoded from a fork of `start`."""
        cache = self.backend.fork(start)
        step = exact_above(self.backend, cache) or _FULL_STEP
        total, greedy, at = 0.0, True, 0
        for piece, found in forced(self.backend, cache, [last, *continuation[:-1]], step):
            logits = found.float()
            wanted = torch.tensor(continuation[at : at + len(piece)], device=logits.device)
            at += len(piece)
            chosen = logits.gather(1, wanted[:, None])[:, 0]
            total += float((chosen - logits.logsumexp(-1)).double().sum())
            greedy &= bool((logits.argmax(-1) == wanted).all())
        return total, greedy

    def _generated(self, prompt: str, given: dict[str, Any]) -> str:
        wanted = normalize_gen_kwargs(given, self.max_gen_toks)
        until, most = list(wanted.pop("until")), int(wanted.pop("max_gen_toks"))
        sampling = _sampling(wanted)
        if most >= self.max_length:
            raise SakuinError(
                f"an answer of {most:,} tokens leaves no room for its prompt among the {self.max_length:,} "
                "that are allowed."
            )
        ids = self._shortened(self.tok_encode(prompt), self.max_length - most)
        asked = [ids, until, most, asdict(sampling)]
        answer: str = self._once("answer", asked, lambda: self._answer(ids, until, most, sampling))
        self.cache_hook.add_partial("generate_until", (prompt, given), answer)
        return answer

    def _answer(self, ids: list[int], until: list[str], most: int, sampling: Sampling) -> str:
        def stopped(text: str) -> bool:
            return any(stop and stop in text for stop in until)

        said = decode_answer(self.backend, self._prefilled(ids), ids[-1], most, stopped, sampling)
        answer: str = postprocess_generated_text(said.text, until, None)
        return answer


def _place(device: str | None) -> str:
    if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
        return "auto"
    return device


def check_configuration(wanted: Configuration) -> Configuration:
    """`wanted`, if requests can be answered with it one by one."""
    if wanted.share or wanted.like:
        raise SakuinError(
            f"{wanted.name!r} is at a share of touched bytes, for which each text would have to be decoded "
            "many times; name its settings instead."
        )
    return wanted


_GREEDY = {"do_sample", "temperature", "top_p", "top_k"}


def _sampling(given: dict[str, Any]) -> Sampling:
    """How tokens are drawn; what would change the answer and is not known here is refused."""
    other = {key for key, value in given.items() if key not in _GREEDY and (key, value) != ("num_beams", 1)}
    sampled = bool(given.get("do_sample")) and float(given.get("temperature", 1.0)) > 0
    if sampled and given.get("top_k"):
        other.add("top_k")
    if other:
        raise SakuinError(
            f"the task asks for {', '.join(sorted(other))} in its answers, which sakuin's decoding does not "
            "know; give lm-eval gen_kwargs without it."
        )
    if not sampled:
        return Sampling()
    return Sampling(float(given.get("temperature", 1.0)), float(given.get("top_p", 1.0)), seed=0)
