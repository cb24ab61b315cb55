"""Copies the next batch to a GPU while the current one is computed."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

MOVED = ("img", "features", "label")  # tensors, or lists of them


def move_ahead(batches: Iterator[tuple[Any, Any]], device: torch.device) -> Iterator[tuple[Any, Any]]:
    """The same pairs (batch, unreadable images), with images and labels on a GPU if that is the device."""
    if device.type != "cuda":
        yield from batches
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    ready = None
    for batch, bad in batches:
        with torch.cuda.stream(copying):
            moved = batch and {**batch, **{name: _move(batch[name], device) for name in MOVED if name in batch}}
        arrived = copying.record_event()
        if ready:
            yield ready
        computing.wait_event(arrived)
        for tensor in _tensors(moved):
            tensor.record_stream(computing)
        ready = moved, bad
    if ready:
        yield ready


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_move(one, device) for one in value]
    return value.to(device, non_blocking=True)


def _tensors(batch: dict[str, Any] | None) -> list[Tensor]:
    moved = [batch[name] for name in MOVED if name in batch] if batch else []
    return [tensor for value in moved for tensor in (value if isinstance(value, list) else [value])]
