"""Segments whose files somebody writes to while they are used: what leads to other places was copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reference.exact import made, of
from torch import Tensor

import sakuin
from sakuin.index import _native
from sakuin.storage import tensorfile

N, D, HEADS, GROUP = 300, 16, 2, 2
DATA = made(N, d=D, heads=HEADS, group=GROUP)
SETTINGS = _native.SketchSettings(rescore=4.0, coded=1.25, exact=30.0, reach=2.0, cap=0.6)


class Mapped:
    """A segment's tensors in a file, mapped as a stored context's are."""

    def __init__(self, path: Path, fields: dict[str, Tensor]) -> None:
        self.path = path
        with path.open("wb") as file:
            tensorfile.write(file, fields, {})
        self.tensors = tensorfile.open_mapped(path).tensors

    def overwrite(self, name: str, byte: int) -> None:
        """Fill a tensor in the file with one byte, as another process may."""
        mine = self.tensors[name]
        first = tensorfile.open_mapped(self.path).tensors
        start = min(x.data_ptr() for x in first.values())
        header = self.path.stat().st_size - sum(x.nbytes for x in self.padded(first))
        at = header + first[name].data_ptr() - start
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]) * mine.nbytes)
        assert bytes(mine.view(torch.uint8).view(-1)[:4].tolist()) == bytes([byte]) * 4  # it is shared

    @staticmethod
    def padded(tensors: dict[str, Tensor]) -> list[Tensor]:
        """All that lies in the file, gaps too: from the first tensor to the end of the last."""
        first = min(x.data_ptr() for x in tensors.values())
        end = max(x.data_ptr() + x.nbytes for x in tensors.values())
        return [torch.empty(end - first, dtype=torch.uint8, device="meta")]


@pytest.mark.parametrize("byte", [0xFF, 0x7F])
@pytest.mark.parametrize("name", ["order", "sub_coordinate", "code_coordinate", "code_plan"])
def test_a_sketch_goes_on_with_what_it_was_opened_with(name: str, byte: int, tmp_path: Path):
    mapped = Mapped(tmp_path / "segment", dict(of(DATA, segment=512).segments[0].fields))
    segment = _native.SketchSegment(mapped.tensors)

    def step() -> list[Any]:
        mass = torch.zeros(HEADS, N)
        attended = _native.sketch_attend(DATA.q, [segment], 0.2, 1, SETTINGS, mass=mass, trace=True)
        scores, ids = torch.empty(HEADS * GROUP, 2, 9), torch.empty(HEADS * GROUP, 2, 9, dtype=torch.int64)
        _native.sketch_search(
            DATA.q, [segment], 1, candidates=50, refined=20, reach=2.0, scores=scores, ids=ids
        )
        return [*attended, mass, scores, ids, segment.fields[name].long()]

    before = step()
    mapped.overwrite(name, byte)
    for one, other in zip(before, step(), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("byte", [0xFF, 0x7F])
@pytest.mark.parametrize("name", ["order", "start"])
def test_an_ivf_goes_on_with_what_it_was_opened_with(name: str, byte: int, tmp_path: Path):
    index: Any = sakuin.build_index("ivf", DATA.keys, DATA.values, list_size=16)
    mapped = Mapped(tmp_path / "segment", dict(index.segments[0].fields))
    segment = _native.IvfSegment(mapped.tensors)

    def step() -> list[Any]:
        mass = torch.zeros(HEADS, N)
        attended = _native.ivf_attend(
            DATA.q, [segment], 0.2, 1, probes=0, budget=60, estimate_rest=True, mass=mass
        )
        scores, ids = torch.empty(HEADS * GROUP, 2, 9), torch.empty(HEADS * GROUP, 2, 9, dtype=torch.int64)
        _native.ivf_search(DATA.q, [segment], 1, probes=0, budget=60, scores=scores, ids=ids)
        return [*attended, mass, scores, ids, segment.fields[name]]

    before = step()
    mapped.overwrite(name, byte)
    for one, other in zip(before, step(), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
