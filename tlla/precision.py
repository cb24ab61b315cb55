"""In which precision a device computes, and with which kernels."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch

AUTO = "auto"
PRECISIONS = (AUTO, "fp32", "fp16", "bf16", "amp")


def choose_precision(wanted: str, device: torch.device) -> str:
    """The precision in which a device computes when this one is wanted: fp32, fp16 (weights, too), bf16 or amp (fp16).

    "auto" is amp on a GPU and fp32 on a CPU. A CPU has no fp16: it computes in fp32.

    >>> choose_precision("amp", torch.device("cpu")), choose_precision("auto", torch.device("cuda"))
    ('fp32', 'amp')
    """
    if device.type == "cpu":
        return "bf16" if wanted == "bf16" else "fp32"
    return "amp" if wanted == AUTO else wanted


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which encoders compute in a chosen precision.

    >>> with autocast("bf16", torch.device("cpu")):
    ...     (torch.ones(1, 2) @ torch.ones(2, 1)).dtype
    torch.bfloat16
    """
    dtype = {"amp": torch.float16, "bf16": torch.bfloat16}.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


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
