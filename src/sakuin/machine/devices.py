"""Which device and which dtype a word means on this machine."""

from __future__ import annotations

import torch

from sakuin.arguments import shown
from sakuin.dtypes import FLOATS, torch_dtype
from sakuin.errors import SakuinError
from sakuin.machine.cpu import multiplies_bf16
from sakuin.quantities import meant


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device that a word means on this machine; a `SakuinError` where it has none such."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        place = torch.device(device) if isinstance(device, str | torch.device) else None
    except (RuntimeError, TypeError):
        place = None
    if place is None or place.type not in ("cpu", "cuda"):
        raise SakuinError(
            f"device must be auto, cpu, cuda or one of several GPUs, such as cuda:1; got {str(device)!r}"
            f"{meant(str(device), ('auto', 'cpu', 'cuda'))}."
        )
    if place.type == "cuda" and not gpus:
        raise SakuinError(
            f"device {str(device)!r} needs a GPU, and torch sees none here: take cpu or auto, or install a "
            "build of torch that is made for your GPU."
        )
    if place.type == "cuda" and (place.index or 0) >= gpus:
        raise SakuinError(
            f"there is no device {str(device)!r}: torch sees {gpus} GPU{'' if gpus == 1 else 's'} here, "
            f"cuda:0{'' if gpus == 1 else f' to cuda:{gpus - 1}'}."
        )
    return place


def resolve_dtype(dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu") -> torch.dtype:
    """The dtype that a word means on a device of this machine."""
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    if isinstance(dtype, str) and dtype == "auto":
        fast = torch.device(device).type != "cpu" or multiplies_bf16()
        return torch.bfloat16 if fast else torch.float32
    found = torch_dtype(dtype) if isinstance(dtype, str) else None
    if found is None:
        raise SakuinError(
            f"dtype must be auto, {', '.join(FLOATS)} or a torch dtype of floats, got {shown(dtype)}"
            f"{meant(dtype, ('auto', *FLOATS)) if isinstance(dtype, str) else ''}."
        )
    return found
