"""Weights on a GPU, attention and memory in sakuin, beside the same llama.cpp alone: `make test-gpu-layers`.

What is compared lies on the same GPU both times, so that what it rounds is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from llama_alone import Alone, divergence
from tiny_gguf import write

import sakuin
from sakuin.backends.hooks import AttentionCall
from sakuin.backends.llama_cpp import locate, report, trial, trial_kept
from sakuin.backends.llama_cpp.gpu import gpus
from sakuin.backends.llama_cpp.library import library
from sakuin.config import RetrievalConfig
from sakuin.context.generate import prefill

pytestmark = pytest.mark.timeout(2400)  # a GPU of software may read two tokens a second

FLAT = RetrievalConfig(index="flat", sink=16, recent=64)
SKETCH = RetrievalConfig(index="sketch", sink=16, recent=64)
READ, SAID = 512, 24
MEAN, WORST = 1e-3, 1e-2
"""KL, in nats: llama.cpp alone keeps keys and values in fp16, and its GPU kernels attend in it."""


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if not locate.available():
        pytest.skip("there is no llama.cpp here")
    if not gpus(library()):
        pytest.skip("this llama.cpp has no GPU here (`make test-gpu-layers` builds one that has)")


@pytest.fixture(scope="module")
def path() -> Path:
    from sakuin.backends import catalogue
    from sakuin.backends.source import resolve

    catalogue.get("smollm2")
    found = resolve("smollm2").gguf_path
    assert found is not None
    return found


@pytest.fixture(scope="module")
def ids(path: Path, long_text: str) -> torch.Tensor:
    """Token ids `(1, READ + SAID)` of technical English."""
    with Alone(path) as alone:
        return torch.tensor([alone.encode(long_text[:8000])[: READ + SAID]])


@pytest.fixture(scope="module")
def everywhere(path: Path, ids: torch.Tensor) -> torch.Tensor:
    """Logits `(SAID, words)` of llama.cpp alone with all layers on the GPU, attention too."""
    return alone_on_gpu(path, ids, -1)


@pytest.fixture(scope="module")
def on_gpu(path: Path) -> Any:
    """The model with all layers there."""
    return load(path, "all")


@pytest.fixture(scope="module")
def sketch(on_gpu: Any, ids: torch.Tensor) -> Any:
    """What it has read."""
    return read(on_gpu, SKETCH, ids[0, :READ].tolist())


def alone_on_gpu(path: Path, ids: torch.Tensor, layers: int) -> torch.Tensor:
    with Alone(path, flash=True, gpu_layers=layers) as alone:
        alone.feed(ids[:, :READ])
        return torch.cat([alone.feed(ids[:, at : at + 1])[0] for at in range(READ, ids.shape[1])])


def load(path: Path, layers: int | str, dtype: str = "fp32") -> Any:
    model, _ = sakuin.load(path, dtype=dtype, backend="llama.cpp", gpu_layers=layers)
    return model


def read(model: Any, config: RetrievalConfig | None, tokens: list[int]) -> Any:
    """A cache that has read them and sealed what it may."""
    cache = model.new_cache(config)
    prefill(model, cache, tokens)
    if cache.whole is not None:
        cache.whole.seal()
    return cache


def said(model: Any, cache: Any, tokens: list[int]) -> torch.Tensor:
    return torch.stack([model.forward(cache, [token]) for token in tokens])


def assert_close(expected: torch.Tensor, got: torch.Tensor) -> None:
    kl = divergence(expected, got)
    assert kl.mean() <= MEAN, kl
    assert kl.max() <= WORST, kl


def test_all_layers_on_the_gpu_answer_as_llama_cpp_alone(
    on_gpu: Any, sketch: Any, ids: torch.Tensor, everywhere: torch.Tensor
) -> None:
    tokens = ids[0].tolist()
    assert sketch.whole.sealed_end > READ // 2
    assert_close(everywhere, said(on_gpu, on_gpu.fork(sketch), tokens[READ:]))
    flat = read(on_gpu, FLAT, tokens[:READ])
    assert_close(everywhere, said(on_gpu, flat, tokens[READ:]))
    # Products of weights that are not in host memory stay where these are; attention does not.
    attention, products = on_gpu.loaded.session.seconds
    assert attention > 0
    assert products == 0


def test_forks_and_sequences_together_go_their_own_way(on_gpu: Any, sketch: Any, ids: torch.Tensor) -> None:
    tokens = ids[0].tolist()
    first, second, third = (on_gpu.fork(sketch) for _ in range(3))
    on_gpu.forward(second, tokens[:8])
    expected = said(on_gpu, first, tokens[READ : READ + 8])
    steps = [
        on_gpu.forward_together([third, second], [[token], [tokens[8 + i]]])
        for i, token in enumerate(tokens[READ : READ + 8])
    ]
    assert second.n_tokens == READ + 16
    assert_close(expected, torch.stack([one for one, _ in steps]))


def test_some_layers_on_the_gpu_answer_as_llama_cpp_alone(path: Path, ids: torch.Tensor) -> None:
    model, tokens = load(path, 8), ids[0].tolist()
    cache = read(model, SKETCH, tokens[:READ])
    assert_close(alone_on_gpu(path, ids, 8), said(model, cache, tokens[READ:]))
    assert model.loaded.session.seconds[1] > 0  # those of the layers in host memory


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3", "lfm2"])
@pytest.mark.parametrize("layers", [2, -1])
def test_windows_and_recurrent_layers_too(architecture: str, layers: int, tmp_path: Path) -> None:
    tiny = write(architecture, tmp_path)
    n, steps = 200, 8
    ids = tiny.tokens(n + steps)
    with torch.no_grad():
        expected = tiny.model(ids).logits[0, n:]
    model = load(tiny.gguf, "all" if layers < 0 else layers)
    tokens = ids[0].tolist()
    got = said(model, read(model, FLAT, tokens[:n]), tokens[n:])
    assert divergence(expected, got).max() < 1e-5
    assert (model.loaded.session.seconds[1] == 0) == (layers < 0)


class Stop(Exception):
    pass


def test_an_exception_in_a_layer_stops_the_pass_and_the_next_is_right(tmp_path: Path) -> None:
    tiny = write("qwen2", tmp_path)
    ids = tiny.tokens(200)
    with torch.no_grad():
        expected = tiny.model(ids).logits[0, -1]
    model, tokens = load(tiny.gguf, "all"), ids[0].tolist()
    cache = read(model, FLAT, tokens[:100])

    def stop(call: AttentionCall) -> None:
        if call.layer == tiny.full[-1]:
            raise Stop

    with pytest.raises(Stop), model.attention_hook(stop):
        model.forward(cache, tokens[100:])
    assert cache.n_tokens == 100
    assert divergence(expected, model.forward(cache, tokens[100:])) < 1e-5


def test_a_library_with_a_gpu_answers_the_same_without_layers_there(tmp_path: Path) -> None:
    tiny = write("qwen2", tmp_path)
    ids = tiny.tokens(100)
    with torch.no_grad():
        expected = tiny.model(ids).logits[0, -1]
    model = load(tiny.gguf, 0)
    got = model.forward(model.new_cache(FLAT), ids[0].tolist())
    assert divergence(expected, got) < 2e-6


def test_the_first_load_is_tried_with_its_layers_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(trial.VARIABLE, raising=False)
    monkeypatch.setattr(trial_kept, "_CALM", 1e9)  # threads of a GPU of software wait for each other
    seen: list[bool] = []
    run = trial._run

    def counted(*given: Any) -> Any:
        seen.append(given[2].repack)
        return run(*given)

    monkeypatch.setattr(trial, "_run", counted)
    tiny = write("llama", tmp_path, "Q8_0")
    for _ in range(2):
        load(tiny.gguf, "all")
    assert seen == [False]
    (kept,) = trial_kept.kept()
    assert kept.about["gpu_layers"] == -1
    assert not any(each.wrong for each in kept.measured)


def test_doctor_names_the_gpus() -> None:
    found = report.examine()
    assert found.problem is None
    assert len(found.gpus) == len(gpus(library()))
    assert found.gpus[0].startswith(str(gpus(library())[0]))
