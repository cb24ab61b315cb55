"""Jobs on SLURM, through submitit (pip install submitit). The sweep itself stays where it is and waits for them."""

import contextlib
import importlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

import train
from tlla.errors import InputError

from .job import COMPLETE, Job
from .processes import STOPPED, Handle, from_outside, launch, lock

RETRY = 60.0  # seconds until a cluster that takes no more jobs is asked again


class ClusterTask:
    """What a node does with a job."""

    def __call__(self, job: Job) -> int:
        """Waits for the folder's lock, runs the job unless it is complete now; returns the exit code."""
        held = lock(job.folder, wait=True)
        if job.state() == COMPLETE:  # an earlier sweep's job has done it meanwhile
            held.close()
            return 0
        process = launch(job, held)
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()

    def checkpoint(self, job: Job) -> Any:
        """Asked by submitit before a job's limit: what goes into the queue again, slurm_max_num_timeout (3) times."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self, job)


class Submitted(Handle):
    """A job in the queue or on a node."""

    def __init__(self, job: Any):
        self.job = job

    def poll(self) -> int | None:
        """Its exit code, or None while it waits or runs; a job that the cluster ended counts as failed."""
        if not self.job.done():
            return None
        return STOPPED if self.job.exception() else self.job.result()

    def ended(self) -> str:
        """By the cluster, or by an error before train.py was started."""
        error = self.job.exception()
        if error is None:
            return f"on its node {said}" if (said := from_outside(self.job.result())) else ""
        warned = "checkpoint_and_try_requeue" in str(error)  # submitit's, of the signal before the limit
        if type(error).__name__ == "FailedJobError" and not warned:
            lines = [line for line in str(error).splitlines() if "Error: " in line]
            return f"{(lines or [str(error)])[-1]} (its log: {self.job.paths.stderr})"
        state = self.job.state.partition(" ")[0]
        return f"it was ended by the cluster ({state}); the same command resumes it (its log: {self.job.paths.stderr})"

    def stop(self) -> None:
        """Cancels it."""
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # the others are to be cancelled, too
            self.job.cancel()


class Cluster:
    """Submits each job when what it needs is there.

    Args:
        kind: "slurm"; or "local": submitit's own processes on this machine.
        folder: For submitit's files.
        parameters: Of submitit's AutoExecutor, e.g. timeout_min, gpus_per_node, slurm_partition.
    """

    pause = 1.0  # second

    def __init__(self, kind: str, folder: Path, parameters: dict[str, Any]):
        self.jobs: list[Submitted] = []
        self.next_try = 0.0
        try:
            submitit = importlib.import_module("submitit")
        except ImportError as error:
            raise InputError(f"--submit {kind} needs the package submitit: pip install submitit") from error
        paths = (str(train.HERE), os.environ.get("PYTHONPATH", ""))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # the nodes import this module
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=kind)
            self.executor.update_parameters(**{"timeout_min": 24 * 60, "name": "sweep", **parameters})
        except (NameError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"--submit {kind}: {error}") from error

    def start(self, job: Job, slot: int) -> Submitted | None:
        """Submits it; None if the cluster takes no more jobs now. InputError if it takes none at all."""
        if time.monotonic() < self.next_try:
            return None
        try:
            self.jobs.append(Submitted(self.executor.submit(ClusterTask(), job)))
        except Exception as error:  # submitit's FailedJobError, which says what sbatch has printed
            if type(error).__name__ != "FailedJobError":
                raise
            said = " ".join(str(error).split())
            if all(job.poll() is not None for job in self.jobs):
                raise InputError(f"the cluster refuses {job.name}: {said}; see --submit-with") from error
            tqdm.write(f"the cluster takes no more jobs now ({said}): the others wait")
            self.next_try = time.monotonic() + RETRY
            return None
        return self.jobs[-1]


def parameters(words: list[str]) -> dict[str, Any]:
    """--submit-with timeout_min=60 slurm_partition=gpu: whole numbers as such, all else as text."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InputError(f"--submit-with takes KEY=VALUE, e.g. slurm_partition=gpu, but got {word!r}")
        found[key] = value
        with contextlib.suppress(ValueError):
            found[key] = int(value)
    return found
