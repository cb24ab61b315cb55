"""Peak memory: of the GPU's allocator where there is one, else of the process."""

import contextlib
import sys
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None


def reset_peak_memory() -> None:
    """Starts a new measurement; where the system has no such means (other than Linux), the old peak stays."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mb() -> float:
    """Peak in MB (10^6 bytes) since the last reset, or since the start of the process."""
    if torch.cuda.is_available() and (allocated := torch.cuda.max_memory_allocated()):
        return round(allocated / 1e6, 1)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6, 1)
    if resource:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
    import psutil  # here, as only Windows needs it

    return round(psutil.Process().memory_info().peak_wset / 1e6, 1)
