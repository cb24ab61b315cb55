"""Jobs on SLURM, through submitit (pip install submitit). The sweep itself stays where it is and waits for them."""

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

import train
from tlla.errors import InputError

from .job import COMPLETE, Job
from .processes import launch, lock


def run_there(job: Job) -> int:
    """What a node does: waits for the folder's lock, runs the job unless it is complete now; returns the exit code."""
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


class Submitted:
    """A job in the queue or on a node."""

    def __init__(self, job: Any):
        self.job = job

    def poll(self) -> int | None:
        """Its exit code, or None while it waits or runs; a job that the cluster ended counts as failed."""
        if not self.job.done():
            return None
        return 1 if self.job.exception() else self.job.result()

    def stop(self) -> None:
        """Cancels it."""
        self.job.cancel()

    def kill(self) -> None:
        """Nothing more can be done from here."""


class Cluster:
    """Submits each job when what it needs is there.

    Args:
        kind: "slurm"; or "local": submitit's own processes on this machine.
        folder: For submitit's files.
        parameters: Of submitit's AutoExecutor, e.g. timeout_min, gpus_per_node, slurm_partition.
    """

    def __init__(self, kind: str, folder: Path, parameters: dict[str, Any]):
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

    def start(self, job: Job, slot: int) -> Submitted:
        """Submits it."""
        return Submitted(self.executor.submit(run_there, job))


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
