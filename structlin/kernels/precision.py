"""Which dtype do matrix products take here? That of autocast, where it is on; and a way to switch it off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

_WITHOUT_AUTOCAST = ("meta",)


def product_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype that autocast gives to products on this device, or None: that of their operands."""
    if device.type in _WITHOUT_AUTOCAST or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def as_given(device: torch.device) -> AbstractContextManager[object]:
    """Within it products keep the dtype of their operands."""
    return nullcontext() if device.type in _WITHOUT_AUTOCAST else torch.autocast(device.type, enabled=False)
