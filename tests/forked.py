"""Runs an entry point in a fork of this process: it can be stopped and limited, and nothing is imported anew."""

import contextlib
import importlib
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostile import MODULES


@dataclass
class Child:
    """A forked process.

    Attributes:
        pid: Its number.
        pipe: Where what it prints on stderr comes out; it must fit into a pipe.
        error: That text, once it has ended.
    """

    pid: int
    pipe: int
    error: str = ""

    def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with os.fdopen(self.pipe, errors="replace") as pipe:
            self.error = pipe.read()
        return code

    def stop_after(self, seconds: float, number: signal.Signals) -> int:
        """Sends a signal to it and its workers, unless it has ended before; returns the exit code."""
        time.sleep(seconds)
        os.killpg(self.pid, number)  # not waited for yet, so that the number is still its own
        return self.wait()


def fork(
    entry: str | Callable[[list[str]], int],
    argv: Sequence[object] = (),
    largest_file: int | None = None,
    out: str | os.PathLike = os.devnull,
    **environment: str,
) -> Child:
    """Starts an entry point of MODULES, or a function.

    Args:
        entry: Key in MODULES, or what accepts argv and returns the exit code.
        argv: Its arguments.
        largest_file: In bytes; what is larger cannot be written, as if the disk were full.
        out: File of the standard output.
        environment: Variables beside this process's own.
    """
    main = entry if callable(entry) else importlib.import_module(MODULES[entry]).main
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # here too, so that it is done before a signal is sent
        os.close(writing)
        return Child(pid, reading)
    code = 99
    try:  # whatever happens, the child must not go on as a second pytest
        os.setpgid(0, 0)  # a group of its own, as a shell makes
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)  # as at the start of a process
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
        os.environ.update(environment)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        code = main([str(word) for word in argv])
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        os._exit(code)


def forget(*packages: str) -> None:
    """In a fork: the project's modules, and other packages, will be imported anew."""
    here = str(Path(__file__).parents[1])
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in packages or (file.startswith(here) and "site-packages" not in file):
            del sys.modules[name]


def fork_several(processes: int, entry: str, argv: Sequence[object]) -> list[Child]:
    """Starts an entry point in several processes, under the variables that torchrun sets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [fork(entry, argv, RANK=str(rank), LOCAL_RANK=str(rank), **job) for rank in range(processes)]
