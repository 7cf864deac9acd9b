"""Memory: what there is, limits of containers included, and what a context takes, before it is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Gemma3TextConfig, LlamaConfig

from sakuin import RetrievalConfig
from sakuin.backends.transformers.shape import count_weights, shape_of
from sakuin.capacity.need import check, estimate, tokens_that_fit
from sakuin.errors import SakuinError
from sakuin.machine.memory import Available, available
from sakuin.quantities import size_of

GIB = 1 << 30
LLAMA = LlamaConfig(
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    vocab_size=1000,
)
SHAPE, WEIGHTS = shape_of(LLAMA), 4 * count_weights(LLAMA)


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A /proc and a /sys/fs/cgroup of a machine with 8 GiB available, without limits."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    (proc / "self/cgroup").write_text("0::/app/job\n")
    return proc, groups


def test_without_limits_the_machine_sets_the_bound(machine: tuple[Path, Path]) -> None:
    assert available(*machine, limits=False).bytes == 8 * GIB


def test_a_limit_of_any_cgroup_above_the_process_counts(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    (groups / "app/job").mkdir(parents=True)
    (groups / "app/job/memory.max").write_text("max\n")
    (groups / "app/job/memory.current").write_text(f"{GIB}\n")
    (groups / "app/memory.max").write_text(f"{4 * GIB}\n")
    (groups / "app/memory.current").write_text(f"{3 * GIB}\n")
    (groups / "app/memory.stat").write_text(f"anon 1\ninactive_file {2 * GIB}\n")
    have = available(proc, groups, limits=False)
    assert have.bytes == 3 * GIB  # the limit, less what is used and cannot be dropped
    assert "4.29 GB" in have.bound


def test_the_first_version_of_cgroups_counts_too(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    (proc / "self/cgroup").write_text("5:cpu:/x\n3:memory,hugetlb:/box\n")
    (groups / "memory/box").mkdir(parents=True)
    (groups / "memory/box/memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    (groups / "memory/box/memory.usage_in_bytes").write_text(f"{GIB}\n")
    assert available(proc, groups, limits=False).bytes == GIB


def test_a_full_cgroup_leaves_nothing(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    (groups / "memory.max").write_text(f"{GIB}\n")
    (groups / "memory.current").write_text(f"{2 * GIB}\n")
    assert available(proc, groups, limits=False).bytes == 0


def test_weights_are_counted_without_allocating_them() -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(LLAMA)
    assert count_weights(LLAMA) == sum(p.numel() for p in model.parameters())


def test_keys_and_values_follow_from_the_configuration() -> None:
    few, many = (
        estimate(SHAPE, n, torch.bfloat16, RetrievalConfig(index="flat"), weights=0) for n in (10_000, 20_000)
    )
    assert many.kv - few.kv == 4 * 10_000 * 2 * 2 * 64 * 2
    assert few.index == 0
    wide = [
        estimate(SHAPE, n, torch.bfloat16, RetrievalConfig(index="flat", kv_dtype="fp32"), weights=0).kv
        for n in (10_000, 20_000)
    ]
    assert wide[1] - wide[0] == 2 * (many.kv - few.kv)


def test_a_sliding_layer_takes_its_window_only() -> None:
    config = Gemma3TextConfig(
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=512,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        hidden_size=640,
        intermediate_size=2048,
        vocab_size=1000,
    )
    settings = RetrievalConfig(index="flat", sink=0, recent=64, segment=64)
    need = estimate(shape_of(config), 10_000, torch.float32, settings, weights=0)
    assert need.kv == (10_000 + 2 * (64 + 64) + 512) * 2 * 256 * 4


def test_the_longest_context_that_fits_fits_and_one_more_does_not() -> None:
    have = GIB
    for retrieval in (None, RetrievalConfig()):
        n = tokens_that_fit(SHAPE, torch.float32, retrieval, have, WEIGHTS)
        assert estimate(SHAPE, n, torch.float32, retrieval, weights=WEIGHTS).total <= have
        assert estimate(SHAPE, n + 1, torch.float32, retrieval, weights=WEIGHTS).total > have


def test_too_little_memory_is_said_in_figures() -> None:
    need = estimate(SHAPE, 1_000_000, torch.float32, RetrievalConfig(), weights=WEIGHTS)
    with pytest.raises(SakuinError) as error:
        check(need, "this", Available(GIB, "are left of this container's limit of 2 GB"))
    assert size_of(need.total) in str(error.value)
    assert "1.07 GB are left of this container's limit" in str(error.value)
    check(need, "this", Available(need.total, "are free"))
