"""Counts how often the host waits for the GPU: on one by torch's own debug mode, without one on tensors without data.

Such a tensor (torch's FakeTensor) says that it is on a GPU, and operations only compute its shape. All that is copied
between host and GPU, and all that is read, passes a dispatch mode, which notes it. A backward pass on the device "cuda"
asks for a real one; the device "lazy" does not.
"""

import traceback
import warnings
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tlla.clip import _per_channel
from tlla.prompts.chunks import place_chunks

ATEN = torch.ops.aten
READS = (ATEN._local_scalar_dense.default, ATEN.equal.default, ATEN.is_nonzero.default)
SIZES = (ATEN.nonzero.default, ATEN.masked_select.default, ATEN._unique2.default)  # whose shape depends on numbers


class Waits(TorchDispatchMode):
    """Notes in `found` the line of this project that waits, for each wait; what is read is 1."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in READS or func in SIZES or _copies(func, args, kwargs) or _looks_up(func, args):
            self.found.append(_where())
        return _one(args[0]) if func in READS else func(*args, **kwargs)

    def tolist(self, values: Tensor) -> list:
        """In place of the method of tensors without data, which reads one number after the other."""
        self.found.append(_where())
        return [_one(values)] * len(values)


def _one(values: Tensor) -> bool | int | float:
    return {torch.bool: True, torch.int64: 1}.get(values.dtype, 1.0)


def _copies(func, args, kwargs) -> bool:
    """Whether it copies between host and GPU and waits for the end."""
    if func is ATEN.copy_.default:
        return args[0].device.type != args[1].device.type and args[1].dim() > 0 and not (args[2:] or (False,))[0]
    target = kwargs.get("device")
    if func is not ATEN._to_copy.default or target is None or kwargs.get("non_blocking"):
        return False
    return target.type != args[0].device.type


def _looks_up(func, args) -> bool:
    """Whether an index is on the host, or is a mask."""
    if func not in (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default) or args[0].device.type == "cpu":
        return False
    return any(i is not None and (i.device.type == "cpu" or i.dtype == torch.bool) for i in args[1])


def _where() -> str:
    here = [frame for frame in traceback.extract_stack() if "site-packages" not in frame.filename][:-2]
    return f"{here[-1].filename}:{here[-1].lineno} {here[-1].line}"


class Host:
    """Runs functions on a device, and says where the host waits meanwhile; on the CPU, tensors without data stand in.

    Args:
        device: Of the tests.
        backward: Whether a backward pass is to be made.
    """

    def __init__(self, device: torch.device, backward: bool = False):
        self.mode = FakeTensorMode(allow_non_fake_inputs=True) if device.type == "cpu" else None
        self.device = torch.device("lazy" if backward else "cuda", 0) if self.mode else device

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *error: object) -> None:
        for cached in (place_chunks, _per_channel) if self.mode else ():  # other tests want tensors with data
            cached.cache_clear()

    def on_device(self, values: Tensor) -> Tensor:
        """The same tensor there."""
        if self.mode is None:
            return values.to(self.device)
        return FakeTensor(self.mode, values.detach().to("meta"), self.device)

    def pinned(self, values: Tensor) -> Tensor:
        """The same tensor in pinned memory of the host."""
        return self.mode.from_tensor(values) if self.mode else values.pin_memory()

    def move(self, module: nn.Module) -> nn.Module:
        """The same module with parameters and buffers without data."""
        for part in module.modules():
            for name, one in part._parameters.items():
                part._parameters[name] = one if one is None else nn.Parameter(self.on_device(one), one.requires_grad)
            for name, one in part._buffers.items():
                part._buffers[name] = one if one is None else self.on_device(one)
        return module

    def waits(self, function: Callable[[], object]) -> list[str]:
        """The lines that wait while it runs, each as often as it waits."""
        if self.mode:
            waits = Waits()
            with mock.patch.object(FakeTensor, "tolist", lambda values: waits.tolist(values)), self.mode, waits:
                function()
            return waits.found
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found = (f"{one.filename}:{one.lineno}" for one in caught if "called a synchronizing" in str(one.message))
        return list(found)
