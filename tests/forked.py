"""Runs an entry point in a fork of this process: it can be stopped and limited, and nothing is imported anew."""

import contextlib
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass

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
        """Sends a signal, unless it has ended before; returns the exit code."""
        time.sleep(seconds)
        os.kill(self.pid, number)  # not waited for yet, so that the number is still its own
        return self.wait()


def fork(entry: str, argv: list[str], largest_file: int | None = None, out: str = os.devnull) -> Child:
    """Starts an entry point of MODULES.

    Args:
        entry: Key in MODULES.
        argv: Its arguments.
        largest_file: In bytes; what is larger cannot be written, as if the disk were full.
        out: File of the standard output.
    """
    main = importlib.import_module(MODULES[entry]).main
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = 99
    try:  # whatever happens, the child must not go on as a second pytest
        os.dup2(os.open(out, os.O_WRONLY), 1)
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        os._exit(code)
