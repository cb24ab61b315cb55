"""The error class for what a user can fix: a file, a config key, an argument."""

import contextlib
import difflib
from collections.abc import Iterator

MOST_KNOWN = 30  # names that a message lists


class InputError(ValueError):
    """Bad input. The message names what was found, what was expected and what to do, in one sentence."""


@contextlib.contextmanager
def within(node: str) -> Iterator[None]:
    """Prefixes the config node to an InputError that begins with a key: ``RHO must ...``.

    >>> with within("TRAINER.SAPT"): raise InputError("RHO must be at least 0, but got -1")
    Traceback (most recent call last):
    tlla.errors.InputError: TRAINER.SAPT.RHO must be at least 0, but got -1
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{node}.{error}") from error


def nearest(name: str, known: list[str]) -> str:
    """Suggests names of `known` for a mistyped `name`, as the end of a message.

    >>> nearest("SATP", ["CoOp", "SAPT"])
    "did you mean 'SAPT'? (known: CoOp, SAPT)"
    """
    lowered = {k.lower(): k for k in known}
    close = [lowered[m] for m in difflib.get_close_matches(name.lower(), lowered, n=2, cutoff=0.5)]
    more = f", and {len(known) - MOST_KNOWN} more" if len(known) > MOST_KNOWN else ""
    listed = ", ".join(sorted(known)[:MOST_KNOWN]) + more
    return f"did you mean {' or '.join(map(repr, close))}? (known: {listed})" if close else f"known are {listed}"
