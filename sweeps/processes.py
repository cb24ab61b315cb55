"""How a job is run here: a process of train.py that holds its folder's lock as long as it lives.

The lock belongs to the process, not to the sweep: if a sweep is killed, a process that it left behind continues, and
the next sweep waits for it instead of starting another one in the same folder.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

import psutil
import torch

import train

from .job import LOG, Job

try:
    import fcntl
except ImportError:  # Windows: without locks, two sweeps must not share an output folder
    fcntl = None

SCRIPT = train.HERE / "train.py"
LOCK = ".sweep.lock"
STOPPED = 130  # train.py's exit code after Ctrl-C, SIGTERM and the signals of schedulers
PATIENCE = 60  # seconds that a process has to save its results before it is killed


class Handle:
    """A job that was started. A subclass replaces what it can do."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        raise NotImplementedError

    def ended(self) -> str:
        """Why it has ended, if train.py itself has not said so in its log; else ""."""
        return ""

    def stop(self) -> None:
        """Asks it to end; it can save what it has."""

    def kill(self) -> None:
        """Ends it for good, after some patience."""


class Backend(Protocol):
    """Who runs jobs."""

    pause: float  # seconds between two looks at them

    def start(self, job: Job, slot: int) -> Handle | None:
        """Starts a job; None if another process is in its folder."""


def n_cores() -> int:
    """Of the CPU's cores, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def from_outside(code: int) -> str:
    """What an exit code says of an end that train.py has not chosen itself; "" if it has."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"it was killed by {name}{', perhaps for want of memory' if name == 'SIGKILL' else ''}"
    return "it was stopped from outside; the same command resumes it" if code == STOPPED else ""


def lock(folder: Path, wait: bool = False) -> IO | None:
    """The folder's lock, made if needed; None if another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("w", encoding="utf-8")
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    return file


def launch(job: Job, held: IO, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Starts train.py, which inherits the lock; what it prints goes to the folder's sweep.log."""
    job.note_start()
    command = [sys.executable, str(SCRIPT), *job.argv]
    with held, (job.folder / LOG).open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=(held.fileno(),) if fcntl else (),
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends its processes in order
        )


class Process(Handle):
    """A process of this machine."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.process.poll()

    def ended(self) -> str:
        """By which signal."""
        return from_outside(self.process.returncode)

    def stop(self) -> None:
        """SIGTERM: train.py saves and ends."""
        with contextlib.suppress(OSError):
            self.process.terminate()

    def kill(self) -> None:
        """Waits, then kills it with the processes that it has started."""
        try:
            self.process.wait(PATIENCE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with contextlib.suppress(psutil.Error):
                for process in psutil.Process(self.process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            self.process.kill()
            self.process.wait()


class Called(Handle):
    """A job that runs in this process, to its end, when it is first asked for its exit code."""

    def __init__(self, job: Job, held: IO):
        self.job, self.held = job, held

    def poll(self) -> int:
        """Runs it; what it prints goes to the folder's sweep.log. Ctrl-C and SIGTERM stop the sweep, too."""
        self.job.note_start()
        with self.held, (self.job.folder / LOG).open("w", encoding="utf-8") as log:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                code = train.main(self.job.argv)
        if code == STOPPED:
            raise KeyboardInterrupt
        return code


class Here:
    """Runs jobs in this process, one after another: short ones need no interpreter of their own."""

    pause = 0.0

    def start(self, job: Job, slot: int) -> Called | None:
        """Notes a job; None if another process is in its folder."""
        held = lock(job.folder)
        return held and Called(job, held)


class Local:
    """Runs jobs on this machine; with GPUs, the job in a slot sees one of them, by turns.

    Args:
        jobs: How many run side by side. On a CPU they share its cores, unless OMP_NUM_THREADS says otherwise.
    """

    pause = 0.1

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        named = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
        self.devices = [name.strip() for name in named]

    def start(self, job: Job, slot: int) -> Process | None:
        """Starts a job; None if another process is in its folder."""
        held = lock(job.folder)
        if held is None:
            return None
        env = dict(os.environ)
        if self.devices:
            env["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        elif self.jobs > 1:
            env.setdefault("OMP_NUM_THREADS", str(max(1, n_cores() // self.jobs)))
        return Process(launch(job, held, env))
