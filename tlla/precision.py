"""How a GPU computes: with the same kernels in each process, and float32 in full precision where that matters."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def keep_bits() -> None:
    """For a whole process: a run that is repeated or resumed on the same GPU has the same bits, and fp32 is fp32.

    >>> keep_bits()
    >>> torch.backends.cudnn.deterministic
    True
    """
    torch.backends.cudnn.benchmark = False  # times kernels anew in each process
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass adds up in any order


@contextmanager
def float32_products(device: torch.device, precision: str = "ieee") -> Iterator[None]:
    """Float32 matrix products on a device in full precision ("ieee") or TF32 ("tf32"), whatever the process has set.

    >>> with float32_products(torch.device("cpu")):
    ...     torch.ones(1, 2) @ torch.ones(2, 1)
    tensor([[2.]])
    """
    on_gpu = device.type == "cuda"
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch 2.9: the older calls fail after this one
        flag = (torch.backends.cuda if on_gpu else torch.backends.mkldnn).matmul
        before = flag.fp32_precision
        flag.fp32_precision = precision
        restore = functools.partial(setattr, flag, "fp32_precision", before)
    else:
        restore = functools.partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision({"ieee": "highest", "tf32": "high"}[precision])
    try:
        yield
    finally:
        restore()
