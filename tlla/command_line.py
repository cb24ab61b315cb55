"""What all command lines share: start-up, signals, error messages and exit codes.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 stopped. TLLA_DEBUG=1 shows the traceback of an error.
Nothing here imports torch, so that --help is quick where a parser needs nothing else.
"""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError

AGAIN = "run the same command again to resume"
SPINS = "3000"  # iterations that a waiting thread spins before it sleeps; the default of GNU's OpenMP is 300,000
BROKEN_PIPE = 128 + 13  # a shell's exit code for SIGPIPE
# torchrun and schedulers send SIGTERM; SLURM warns of the time limit by the others, which Windows lacks.
STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
MACHINE = (  # what a machine runs out of: pattern in the message of the system or torch, and what to do
    (
        r"Too many open files|items of ancdata",
        "the limit of open files is reached: raise it (ulimit -n 65536) or use fewer workers (DATALOADER.NUM_WORKERS)",
    ),
    (
        r"[Bb]us error|(out of|allocate) shared memory|shared memory object|/torch_\d\S*: (No space|Success)",
        "the shared memory /dev/shm is full: enlarge it (docker run --shm-size=8g), or load images without worker "
        "processes (DATALOADER.NUM_WORKERS 0)",
    ),
    (
        r"DataLoader worker .*(killed by signal|exited unexpectedly)",
        "a process that loads images was killed, usually because the machine's memory is full: use fewer "
        f"workers (DATALOADER.NUM_WORKERS) or smaller batches, then {AGAIN}",
    ),
    (
        r"can't start new thread|Resource temporarily unavailable",
        "the limit of processes and threads is reached: raise it (ulimit -u) or use fewer workers "
        "(DATALOADER.NUM_WORKERS) and threads (OMP_NUM_THREADS)",
    ),
    (r"No space left on device|[Qq]uota exceeded", f"the disk is full: make room, then {AGAIN}"),
    (
        r"out of memory|can't allocate memory|Cannot allocate memory|Unable to allocate|STATUS_ALLOC_FAILED",
        "there is not enough memory: use smaller batches (DATALOADER.*.BATCH_SIZE, VIEW_BATCH, --batch-views)",
    ),
)


def start(file: str) -> None:
    """Must be called first in a script, before it imports torch.

    Ctrl-C prints no traceback while modules are imported. OpenMP's waiting threads spin only briefly: on a busy CPU a
    spinning thread takes time from the one that it waits for (docs/performance.md). OMP_WAIT_POLICY and
    GOMP_SPINCOUNT are kept if the user has set them. A script from another checkout than tlla exits with code 2.

    Args:
        file: The script's ``__file__``.

    >>> start(__file__)
    >>> call(lambda: None)
    0
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback; `call` puts it back
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        check_same_tree(file)
    except InputError as error:
        _say_any_text()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def check_same_tree(*files: str | None) -> None:
    """Refuses to mix two checkouts, as happens by PYTHONPATH or an environment installed from another checkout.

    Args:
        files: ``__file__`` of this project's scripts or packages, or of ``dassl``, which may be another project's.

    Raises:
        InputError: a file is in another checkout or installation than tlla.

    >>> Path("other/tlla").mkdir(parents=True); Path("other/tlla/__init__.py").touch()
    >>> check_same_tree("other/train.py")
    Traceback (most recent call last):
    tlla.errors.InputError: ...train.py is from another checkout than tlla in ...: install the one that you want ...
    """
    root = Path(__file__).resolve().parent.parent
    for path in (Path(file).resolve() for file in files if file):
        home = next((p for p in path.parents if (p / "tlla" / "__init__.py").is_file()), root)
        ours = path.parent.name != "dassl" or (path.parents[1] == home / "toolkit" and (root / "toolkit").is_dir())
        if ours and home != root:
            raise InputError(
                f"{path} is from another checkout than tlla in {root}: install the one that you want "
                f"(pip install -e {home / 'toolkit'} -e {home}) in its own environment, and unset PYTHONPATH"
            )


def call(function: Callable[[], int | None], stopped: str = f"stopped; {AGAIN}") -> int:
    """Runs a command line's function and returns the exit code.

    Args:
        function: Parses the arguments and runs; returns the exit code, None for 0.
        stopped: Message after Ctrl-C or SIGTERM.

    >>> call(lambda: int(Path("no.txt").read_text()))
    2
    """
    _say_any_text()
    _stop_at_sigterm()
    try:
        code = function() or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has closed it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        found = explain(error)
        if found is None or os.environ.get("TLLA_DEBUG"):
            raise
        code, sentence = found
        if _rank() == 0 or not isinstance(error, FloatingPointError):  # all processes have the same loss
            print(f"error: {sentence}", file=sys.stderr)
        return code


def explain(error: Exception) -> tuple[int, str] | None:
    """Exit code and message of an error that the user can fix; None if it looks like a bug.

    >>> explain(RuntimeError("CUDA out of memory"))
    (1, 'there is not enough memory: use smaller batches (DATALOADER.*.BATCH_SIZE, VIEW_BATCH, --batch-views) (CUDA
    out of memory)')
    """
    sentence = _one_sentence(error)
    if isinstance(error, InputError):
        return 2, sentence
    if isinstance(error, (OSError, RuntimeError, MemoryError)):
        code = 2 if isinstance(error, OSError) else 1
        text = "out of memory" if isinstance(error, MemoryError) else str(error)
        for pattern, advice in MACHINE:
            if re.search(pattern, text):
                return code, f"{advice} ({sentence})"
    if isinstance(error, (ValueError, OSError)):
        return 2, sentence
    if isinstance(error, FloatingPointError):
        return 1, sentence
    if isinstance(error, RuntimeError) and (total := int(os.environ.get("WORLD_SIZE", 1))) > 1:
        ended = f"process {_rank()} of {total} cannot continue, perhaps because another one has ended"
        return 1, f"{ended} ({sentence}); {AGAIN}"
    return None


def _one_sentence(error: BaseException) -> str:
    """The message of an error; from a loader's worker process, without the traceback that torch wraps around it."""
    text = str(error).strip() or type(error).__name__
    if "Original Traceback" in text:
        return text.splitlines()[-1].partition(": ")[2]
    return text.replace("\n", "\\n") if isinstance(error, InputError) else text.splitlines()[0]  # of a file name


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _say_any_text() -> None:
    """Makes characters that the terminal's encoding lacks print as escapes, where Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _stop_at_sigterm() -> None:
    """Makes the signals of torchrun and job schedulers act as Ctrl-C does, so that a run saves its state first."""

    def stop(*_: Any) -> None:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)  # schedulers repeat the signal while it saves
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread
        for number in STOPS:
            signal.signal(number, stop)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set by `start`
            signal.signal(signal.SIGINT, signal.default_int_handler)


def take_pairs(cfg: MutableMapping[str, Any], pairs: Sequence[Any]) -> list[Any]:
    """Sets the KEY VALUE pairs whose default is a string, exactly as written (see `take_texts`).

    Args:
        cfg: The config, a tree of mappings.
        pairs: Keys, such as DATASET.ROOT, alternating with values.

    Returns:
        All other pairs, including unknown keys, for yacs's ``merge_from_list``.

    Raises:
        InputError: a flag follows the pairs, or a key has no value.

    >>> cfg = {"DATASET": {"ROOT": ""}, "SEED": 1}
    >>> take_pairs(cfg, ["DATASET.ROOT", "2024", "SEED", "3"]), cfg
    (['SEED', '3'], {'DATASET': {'ROOT': '2024'}, 'SEED': 1})
    """
    for word in pairs:
        if isinstance(word, str) and re.match("--[a-z]", word):
            raise InputError(f"{word} follows KEY VALUE pairs: put flags before them")
    if len(pairs) % 2:
        wrong = next((key for key in pairs[::2] if "=" in key), pairs[-1])
        raise InputError(f"{wrong!r} is not a config key with a value: write both with a space between, as in SEED 1")
    rest = []
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        content = value
        for name in reversed(key.split(".")):
            content = {name: content}
        if take_texts(cfg, content):
            rest += [key, value]
    return rest


def take_texts(cfg: MutableMapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Sets the values whose default is a string, unchanged; returns the others, for yacs to merge.

    yacs evaluates strings: it would read 2024 as a number and {} as a dict, and strip quotes.

    >>> cfg = {"DATASET": {"ROOT": ""}, "SEED": 1}
    >>> take_texts(cfg, {"DATASET": {"ROOT": "2024"}, "SEED": 3}), cfg
    ({'SEED': 3}, {'DATASET': {'ROOT': '2024'}, 'SEED': 1})
    """
    rest: dict[str, Any] = {}
    for key, value in content.items():
        default = cfg.get(key)
        if isinstance(default, str) and isinstance(value, str):
            cfg[key] = value
        elif isinstance(default, MutableMapping) and isinstance(value, Mapping):
            if inner := take_texts(default, value):
                rest[key] = inner
        else:
            rest[key] = value
    return rest
