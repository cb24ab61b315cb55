"""What the evaluation loop measures: which methods, how long they take and how much memory."""

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from tlla.methods import Method
from tlla.records.writer import ImageColumns, RunRecord

from .gathering import Gathering
from .memory_peak import peak_memory_mb, reset_peak_memory

CHUNK = 4096  # images that the evaluator gets at once


class Meter:
    """Adds up the time of its blocks and keeps their largest peak of memory; an inner meter's block counts there alone.

    On a GPU the time is that between events on its stream, so that the host does not wait for it.
    """

    _running: ClassVar[list["Meter"]] = []  # the outer ones first

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0
        self.peak_mb = 0.0
        self._spans: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        if self._running:
            self._running[-1]._pause()
        self._running.append(self)
        self._resume()

    def __exit__(self, *error: object) -> None:
        self._running.pop()._pause()
        if self._running:
            self._running[-1]._resume()

    def lap(self) -> float:
        """The seconds since the last lap, or since the start; waits for the GPU."""
        for start, end in self._spans:
            self.seconds += _seconds_between(start, end)
        self._spans = []
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _resume(self) -> None:
        reset_peak_memory(self.device)
        self._start = self._now()

    def _pause(self) -> None:
        self._spans.append((self._start, self._now()))
        self.peak_mb = max(self.peak_mb, peak_memory_mb(self.device))

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def _seconds_between(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end) / 1000)


@dataclass
class Entry:
    """One of the methods that share a pass over the images."""

    record: RunRecord
    evaluator: Any
    meter: Meter  # of the method's own work; what all entries share has another
    facts: dict[str, Any]  # for the record of the split
    method: Method | None = None
    title: str = ""
    share: float = 1.0  # of the shared time: a method that looks at one view needs one of V encoded
    gathering: Gathering | None = None  # of a method that predicts several images together

    def state(self) -> Any:
        """What a test that was cut needs to go on: what the method has learned, and the images that wait for others."""
        learned = self.method and self.method.state()
        return (learned, self.gathering.waiting) if self.gathering else learned

    def load_state(self, state: Any) -> None:
        """Restores what `state` returned."""
        if self.gathering:
            state, self.gathering.waiting = state
            self.gathering.move(self.meter.device)
        if self.method:
            self.method.load_state(state)

    def finish(
        self, split: str, predictions: ImageColumns, shared: Meter, n_classes: int, skipped: list[dict[str, Any]]
    ) -> dict[str, float]:
        """Runs the evaluator, which prints its lines, and writes the record; returns what the evaluator found."""
        if self.title:
            print(f"\n{self.title}")
        self.evaluator.cfg = _without_cmat(self.evaluator.cfg)
        columns = predictions.columns
        pairs = zip(columns["prediction"].split(CHUNK), columns["label"].split(CHUNK), strict=True)
        for prediction, label in pairs:  # one-hot scores: those of images that an earlier process has tested are gone
            self.evaluator.process(F.one_hot(prediction, n_classes).float(), label)
        results = self.evaluator.evaluate()
        seconds, total = self.share * shared.seconds + self.meter.seconds, len(columns["index"])
        costs = {
            "seconds_per_image": seconds / total,
            "method_seconds_per_image": self.meter.seconds / total,
            "peak_memory_mb": max(shared.peak_mb, self.meter.peak_mb),
        }
        bad = {"skipped": skipped} if skipped else {}
        self.record.add_split(split, predictions, results, seconds, **costs, **bad, **self.facts)
        return results


def _without_cmat(cfg: CfgNode) -> CfgNode:
    """For the evaluator, whose one cmat.pt a run each split and method would overwrite: the record writes its own."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.COMPUTE_CMAT = False
    cfg.freeze()
    return cfg
