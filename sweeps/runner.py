"""Runs a plan: what is complete is skipped, what was cut is resumed, what failed is listed at the end with its log."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from .job import COMPLETE, LOG, OTHER, Job
from .processes import Backend, Handle, lock


@dataclass
class SweepOutcome:
    """What became of the jobs."""

    before: list[Job] = field(default_factory=list)  # complete before
    now: list[Job] = field(default_factory=list)  # done by this sweep
    failed: dict[Job, str] = field(default_factory=dict)  # the last line of its error, or what has ended it
    refused: dict[Job, list[str]] = field(default_factory=dict)  # job -> settings in which its folder's run differs
    waiting: list[Job] = field(default_factory=list)  # not started, because their source is not complete

    @property
    def good(self) -> bool:
        """Whether all jobs are complete."""
        return not (self.failed or self.refused or self.waiting)

    def text(self) -> str:
        """For the terminal."""
        total = sum(map(len, (self.before, self.now, self.failed, self.refused, self.waiting)))
        counts = [f"{len(self.before)} done before", f"{len(self.now)} done now"]
        for jobs, what in ((self.failed, "failed"), (self.refused, "refused"), (self.waiting, "not started")):
            counts += [f"{len(jobs)} {what}"] if jobs else []
        lines = [f"{total} runs: {', '.join(counts)}"]
        for job, error in self.failed.items():
            lines += [f"failed: {job.name}: {error}", f"  its log: {job.folder / LOG}"]
        for job, differences in self.refused.items():
            more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
            lines += [f"refused: {job.name}: {job.folder} holds a run of other settings: "]
            lines[-1] += f"{'; '.join(differences[:3])}{more}; choose another --out, or --redo moves it aside"
        for job in self.waiting:
            folders = " and ".join(str(source.folder) for source in job.sources.values() if source.state() != COMPLETE)
            lines += [f"not started: {job.name}: it tests the prompt of {folders}, which is not complete"]
        return "\n".join(lines)


class Sweep:
    """One pass over a plan.

    Args:
        jobs: Sources before the jobs that test them.
        backend: Who runs them.
        slots: How many at the same time.
        redo: Whether runs of other settings are moved aside, to <folder>-<time>, and done anew.
    """

    def __init__(self, jobs: Sequence[Job], backend: Backend, slots: int = 1, redo: bool = False):
        self.pending = list(jobs)
        self.backend = backend
        self.redo = redo
        self.free = list(range(slots))[::-1]
        self.running: dict[Job, tuple[int, Handle, float]] = {}
        self.complete: set[Job] = set()
        self.summary = SweepOutcome()

    def run(self) -> SweepOutcome:
        """Runs to the end; after Ctrl-C or SIGTERM ends what it has started and raises KeyboardInterrupt."""
        with tqdm(total=len(self.pending), unit="run", dynamic_ncols=True) as self.bar:
            try:
                while self.pending or self.running:
                    self._start()
                    self._reap()
                    time.sleep(self.backend.pause if self.running or self.pending else 0)
            finally:
                for stop in ("stop", "kill"):  # all are asked first, then waited for
                    for _, handle, _ in self.running.values():
                        getattr(handle, stop)()
        return self.summary

    def _start(self) -> None:
        for job in list(self.pending):
            if lacking := [s for s in job.sources.values() if not s.given and s not in self.complete]:
                if any(source not in self.pending and source not in self.running for source in lacking):
                    self._settle(job, self.summary.waiting)
                continue
            if not self.free:
                continue  # not even looked at, as this takes time
            state = job.state()
            if state == COMPLETE:
                self.complete.add(job)
                self._settle(job, self.summary.before)
            elif state == OTHER and not self.redo:
                self.summary.refused[job] = job.differences()
                self._settle(job)
            elif state != OTHER or _move_aside(job.folder):
                slot = self.free[-1]
                if handle := self.backend.start(job, slot):
                    self.free.pop()
                    self.pending.remove(job)
                    self.running[job] = slot, handle, time.monotonic()
                    self._show()

    def _reap(self) -> None:
        for job, (slot, handle, start) in list(self.running.items()):
            code = handle.poll()
            if code is None:
                continue
            del self.running[job]
            self.free.append(slot)
            seconds = time.monotonic() - start
            if code == 0 and job.state() == COMPLETE:
                self.complete.add(job)
                accuracy = job.result()["splits"][job.split].get("accuracy")
                done = "done" if accuracy is None else f"{accuracy:.1f} %"
                self._settle(job, self.summary.now, f"{done} ({seconds:.0f} s)")
            else:
                error = "it ended without a result" if code == 0 else handle.ended() or job.last_error()
                self.summary.failed[job] = error
                self._settle(job, said=f"FAILED after {seconds:.0f} s: {self.summary.failed[job]}")

    def _settle(self, job: Job, place: list[Job] | None = None, said: str = "") -> None:
        if place is not None:
            place.append(job)
        if job in self.pending:
            self.pending.remove(job)
        self.bar.update()
        if said:
            self.bar.write(f"{job.name}: {said}")
        self._show()

    def _show(self) -> None:
        self.bar.set_postfix_str(", ".join(job.name for job in self.running))


def _move_aside(folder: Path) -> bool:
    """Renames a folder, unless a process is in it; whether it could."""
    held = lock(folder)
    if held is None:
        return False
    with held:
        folder.rename(f"{folder}-{time.strftime('%Y%m%d-%H%M%S')}")
    return True
