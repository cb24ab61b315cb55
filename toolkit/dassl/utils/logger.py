"""Copies what a run prints to a file."""

import os
import sys
import time
from typing import Any

from .tools import mkdir_if_missing


class Logger:
    """A text stream that writes to the console and to a file.

    Example:
        >>> with setup_logger("output/run1"):
        ...     print("goes to the console and to output/run1/log.txt")
    """

    def __init__(self, fpath: str | None = None):
        self.console = sys.stdout
        if hasattr(self.console, "reconfigure"):  # names of files need not be UTF-8
            self.console.reconfigure(errors="backslashreplace")
        self.file = None
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(fpath))
            # Line by line: a killed run must not lose what it had printed.
            self.file = open(fpath, "w", buffering=1, encoding="utf-8", errors="backslashreplace")

    def write(self, msg: str) -> int:
        """Writes to both; returns the number of characters, as text streams do."""
        self.console.write(msg)
        if self.file is not None:
            self.file.write(msg)
        return len(msg)

    def flush(self) -> None:
        """Flushes both."""
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        """Closes the file, and puts the console back as ``sys.stdout``. The console stays open."""
        if sys.stdout is self:
            sys.stdout = self.console
        if self.file is not None:
            self.file.close()
            self.file = None

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *args: Any) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:  # isatty, encoding, fileno ...: as the console
        return getattr(self.__dict__["console"], name)


def setup_logger(output: str | None = None) -> Logger | None:
    """Copies everything printed from now on to ``output``/log.txt.

    The newest run always writes log.txt; an older log.txt is kept as log.txt-<year>-<month>-<day>-<h>-<m>-<s>, the
    time of its last line.

    Args:
        output: A directory, or a file name that ends in .txt or .log; None or empty: nothing is done.

    Returns:
        The stream that took the place of ``sys.stdout``; its ``close()`` undoes this.
    """
    if not output:
        return None
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if isinstance(sys.stdout, Logger):
        sys.stdout.close()  # a second run in this process has its own log, and does not write into the first one's
    if os.path.exists(fpath):
        os.replace(fpath, _kept_name(fpath))
    logger = Logger(fpath)
    sys.stdout = logger
    return logger


def _kept_name(fpath: str) -> str:
    """A free, time-stamped name for an older log."""
    stamped = fpath + time.strftime("-%Y-%m-%d-%H-%M-%S", time.localtime(os.path.getmtime(fpath)))
    name, count = stamped, 1
    while os.path.exists(name):
        name, count = f"{stamped}-{count}", count + 1
    return name
