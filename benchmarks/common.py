"""What the benchmarks share: a random CLIP of a real size, class names, one process a measurement, the report."""

import argparse
import contextlib
import functools
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from tlla.backbones.openai_package import CLIP, convert_weights
from tlla.files import write_text
from tlla.fingerprint import versions
from tlla.precision import PRECISIONS, autocast, choose_precision
from tlla.prompts.classifier import FP16_LOSS_SCALE
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


def random_clip(name: str, device: str, precision: str = "fp32") -> CLIP:
    """OpenAI's architecture with random weights, fp16 or else fp32 ones, at real CLIP's logit scale of 100."""
    return _random_clip(name, device, chosen(precision, device) == "fp16")


@functools.cache
def _random_clip(name: str, device: str, half: bool) -> CLIP:
    torch.manual_seed(0)
    model = CLIP(*ARCHITECTURES[name]).float().eval().requires_grad_(False)
    if half:
        convert_weights(model)
    model.logit_scale.fill_(4.6052)
    model.visual.to(memory_format=torch.channels_last)
    return model.to(device)


def chosen(precision: str, device: str) -> str:
    """The precision in which the trainers compute on a device if PREC asks for `precision`."""
    return choose_precision(precision, torch.device(device))


def in_precision(device: str, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The context in which the trainers run the encoders."""
    return autocast(chosen(precision, device), torch.device(device))


def loss_scale(device: str, precision: str) -> float:
    """The factor on a loss before its backward pass."""
    return FP16_LOSS_SCALE if chosen(precision, device) in ("fp16", "amp") else 1.0


def prompted_model(model: CLIP, n_classes: int, n_ctx: int = 0) -> PromptedCLIP:
    """ "a photo of a" around the first names of ImageNet; with `n_ctx`, as many random context tokens instead."""
    names = (ROOT / "datasets" / "data" / "imagenet_tpt.txt").read_text(encoding="utf-8").splitlines()[:n_classes]
    names = [line.partition(" ")[2] for line in names]
    words = "" if n_ctx else "a photo of a"
    return PromptedCLIP(model, PromptLearner(model, names, n_ctx, words, on_shared=lambda message: None))


def measure(function: Callable[[], Any], device: str, repeats: int) -> dict[str, float]:
    """Seconds of a call (least and median of `repeats`, after some to warm up) and the peak of memory in MB.

    Seconds on a CPU are the processor's, those of all threads together.
    The peak is the rise above what was held before the first call: on a GPU by tensors, on a CPU by the process.
    """
    place = torch.device(device)
    reset_peak_memory(place)
    before = peak_memory_mb(place)  # what is held now
    for _ in range(1 if device == "cpu" else 3):
        function()
    seconds = [_seconds(function, place) for _ in range(repeats)]
    peak = max(peak_memory_mb(place) - before, 0.1)
    return {"seconds": min(seconds), "median": statistics.median(seconds), "peak_mb": peak}


def _seconds(function: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.process_time()  # whatever else runs
        function()
        return time.process_time() - start
    with torch.cuda.device(device):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        function()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000


def in_own_process(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Calls a function in a fresh process, so that no measurement meets the memory of another."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all benchmarks take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--precision", choices=PRECISIONS, default="amp", help="on a CPU fp16 and amp are fp32")
    made.add_argument("--backbone", choices=ARCHITECTURES, default="ViT-B/16")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--output", type=Path, default=ROOT / "output" / "benchmarks", help="folder of the JSON file")
    return made


def write_report(name: str, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Prints the rows as a table and writes them with the machine and the versions to <output>/<name>.json."""
    texts = [i for i, value in enumerate(rows[0].values()) if isinstance(value, str)]
    print(tabulate(rows, "keys", tablefmt="github", floatfmt=".4g", disable_numparse=texts))
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    used = {"output": str(args.output), "precision": chosen(args.precision, args.device)}
    content = {"rows": rows, "arguments": vars(args) | used, **machine}
    content |= {"versions": versions(), "git_commit": git_commit()}
    write_text(args.output / f"{name}.json", json.dumps(content, indent=2) + "\n")
