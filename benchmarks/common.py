"""What the benchmarks share: a random CLIP of a real size, class names, one process a measurement, the report."""

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from tlla.backbones.openai_package import CLIP
from tlla.files import write_text
from tlla.fingerprint import versions
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from trainers.harness.describe_run import git_commit
from trainers.harness.memory_peak import peak_memory_mb, reset_peak_memory

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = {
    "ViT-B/16": (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
    "tiny": (32, 224, 2, 64, 32, 77, 49408, 64, 1, 2),  # to see whether a benchmark works
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
}


def random_clip(name: str, device: str) -> CLIP:
    """OpenAI's architecture with random weights, fp32, at real CLIP's logit scale of 100."""
    torch.manual_seed(0)
    model = CLIP(*ARCHITECTURES[name]).float().eval().requires_grad_(False)
    model.logit_scale.fill_(4.6052)
    model.visual.to(memory_format=torch.channels_last)
    return model.to(device)


def prompted_model(model: CLIP, n_classes: int) -> PromptedCLIP:
    """ "a photo of a" around the first names of ImageNet."""
    names = (ROOT / "datasets" / "data" / "imagenet_tpt.txt").read_text(encoding="utf-8").splitlines()[:n_classes]
    names = [line.partition(" ")[2] for line in names]
    return PromptedCLIP(model, PromptLearner(model, names, ctx_init="a photo of a", on_shared=print))


def measure(function: Callable[[], Any], device: str, repeats: int) -> dict[str, float]:
    """Seconds of a call (least and median of `repeats`, after one to warm up) and the peak of memory in MB.

    On a CPU the peak is the rise above what was resident before the first call.
    """
    before = 0.0 if device.startswith("cuda") else _resident_mb()
    reset_peak_memory()
    function()
    seconds = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": min(seconds),
        "median": statistics.median(seconds),
        "peak_mb": max(peak_memory_mb() - before, 0.1),
    }


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _resident_mb() -> float:
    reset_peak_memory()  # after which the peak is what is resident now
    return peak_memory_mb()


def in_own_process(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Calls a function in a fresh process, so that no measurement meets the memory of another."""
    pool = multiprocessing.get_context("spawn").Pool(1)
    try:
        return pool.apply(function, args)
    finally:
        pool.close()  # not terminate(): the process ends as any other
        pool.join()


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all benchmarks take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--backbone", choices=ARCHITECTURES, default="ViT-B/16")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--output", type=Path, default=ROOT / "output" / "benchmarks", help="folder of the JSON file")
    return made


def write_report(name: str, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Prints the rows as a table and writes them with the machine and the versions to <output>/<name>.json."""
    texts = [i for i, value in enumerate(rows[0].values()) if isinstance(value, str)]
    print(tabulate(rows, "keys", tablefmt="github", floatfmt=".4g", disable_numparse=texts))
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    content = {"rows": rows, "arguments": vars(args) | {"output": str(args.output)}, **machine}
    content |= {"versions": versions(), "git_commit": git_commit()}
    write_text(args.output / f"{name}.json", json.dumps(content, indent=2) + "\n")
