"""How a command line is stopped."""

import contextlib
import os
import signal
import sys
from typing import Any

# SIGTERM is torchrun's and the schedulers'; by the others, which Windows lacks, SLURM warns a job of its limit.
STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


def stop_at_sigterm() -> None:
    """Makes the signals by which torchrun and job schedulers end a process stop it as Ctrl-C does: it saves first."""

    def stop(*_: Any) -> None:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)  # schedulers repeat themselves, while it saves
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread
        for number in STOPS:
            signal.signal(number, stop)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # a script's, while it imported its modules
            signal.signal(signal.SIGINT, signal.default_int_handler)


def leave_stopping_to_parent(worker_id: int) -> None:
    """For a loader's workers: a terminal's Ctrl-C and a scheduler's SIGTERM come to all processes at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    for number in STOPS:
        signal.signal(number, lambda *_: os._exit(0))  # of another end torch would make an error in the parent

    def quiet(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, (OSError, EOFError)):  # of a parent that left while it was handed a tensor
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = quiet
