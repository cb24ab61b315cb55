"""Part env: the machine, torch's flags, the ceilings of matrix products and copies."""

import functools
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tlla.fingerprint import versions
from tlla.precision import float32_products
from tlla.workers import SHARED_MEMORY
from trainers.harness.describe_run import git_commit

from .. import common
from .sizes import Rows, Sizes

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "amp")  # those of the trainers, and fp32 with products in TF32


def measure(sizes: Sizes) -> Rows:
    """Cheap facts first."""
    yield {"what": "machine"}, machine, sizes.device
    for precision in PRECISIONS[:4]:
        label = {"what": "matrix product", "precision": precision}
        yield label, lambda *args: {"TFLOP/s": product_rate(*args) / 1e12}, sizes.device, precision, sizes.product
    for way in ("on the device", "pinned to device", "device to pinned"):
        yield {"what": "copy", "way": way}, copying, way, sizes


def machine(device: str) -> dict[str, Any]:
    """Card, cores, memory, versions, and the flags that change numbers or speed."""
    found: dict[str, Any] = {"python": platform.python_version(), "versions": versions(), "git_commit": git_commit()}
    found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found["/dev/shm MB"] = shutil.disk_usage(SHARED_MEMORY).free / 1e6 if SHARED_MEMORY.is_dir() else None
    cudnn = torch.backends.cudnn
    found |= {f"cudnn.{name}": getattr(cudnn, name) for name in ("benchmark", "deterministic", "allow_tf32")}
    found |= {"float32 products": torch.get_float32_matmul_precision(), "cuda": torch.version.cuda}
    for kind in ("flash", "mem_efficient", "math", "cudnn"):
        found[f"{kind} attention"] = getattr(torch.backends.cuda, f"{kind}_sdp_enabled")()
    if device != "cpu":
        card = torch.cuda.get_device_properties(device)
        found |= {"card": card.name, "capability": f"{card.major}.{card.minor}", "card MB": card.total_memory / 1e6}
        found["cudnn"] = cudnn.version()
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
        found["driver, power, clock"] = subprocess.run(query, capture_output=True, encoding="utf-8").stdout.strip()
    return found


@contextmanager
def tf32(device: str, on: bool) -> Iterator[None]:
    """Products and convolutions of float32 in TF32, or in full precision."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = on
    try:
        with float32_products(torch.device(device), "tf32" if on else "ieee"):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@functools.cache
def product_rate(device: str, precision: str, side: int) -> float:
    """Operations per second of a product of square matrices."""
    dtypes = {"fp16": torch.float16, "amp": torch.float16, "bf16": torch.bfloat16}
    a = torch.randn(side, side, device=device).to(dtypes.get(precision, torch.float32))
    with tf32(device, precision == "tf32"):
        return 2 * side**3 / common.measure(lambda: a @ a, device, 7)["median"]


def copying(way: str, sizes: Sizes) -> dict[str, float]:
    """GB/s of a copy; on the device what is read and what is written counts."""
    there = torch.empty(sizes.copied, dtype=torch.uint8, device=sizes.device)
    here = torch.empty(sizes.copied, dtype=torch.uint8, pin_memory="pinned" in way and sizes.device != "cpu")
    source, target = (here, there) if way.endswith("device") else (there, here)
    if way == "on the device":
        source, target = there, there.clone()
    found = common.measure(lambda: target.copy_(source, non_blocking=True), sizes.device, sizes.repeats)
    return {"GB/s": (1 + (way == "on the device")) * sizes.copied / found["median"] / 1e9}


def kernels(function: Callable[[], Any], device: str) -> dict[str, Any]:
    """The twelve kernels that need most time in a call: name, milliseconds, how often."""
    function()
    name = "CPU" if device == "cpu" else "CUDA"
    with profile(activities=[getattr(ProfilerActivity, name)]) as profiler:
        function()
        if device != "cpu":
            torch.cuda.synchronize()
    kind, time = getattr(torch.autograd.DeviceType, name), f"self_{'cpu' if device == 'cpu' else 'device'}_time_total"
    events = [event for event in profiler.key_averages() if event.device_type == kind]
    rows = sorted(([getattr(event, time) / 1000, event.count, event.key[:120]] for event in events), reverse=True)
    return {"busy ms": sum(row[0] for row in rows), "launches": sum(row[1] for row in rows), "kernels": rows[:12]}
