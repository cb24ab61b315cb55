"""What a script does before it imports torch."""

import os
import signal

SPINS = "3000"  # rounds of a thread that waits, before it sleeps; GNU's OpenMP takes 300,000


def before_torch() -> None:
    """Silences Ctrl-C while modules are imported, and lets OpenMP's threads spin briefly while they wait.

    On a CPU that has other work, a thread that spins takes the time of the one that it waits for (docs/performance.md).
    A user's OMP_WAIT_POLICY or GOMP_SPINCOUNT stays.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback; tlla.signals.stop_at_sigterm puts it back
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
