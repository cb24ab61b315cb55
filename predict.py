"""Predicts one's own images: python predict.py --help. The same as python -m tlla.predict."""

import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while torch is imported shows no traceback
    from tlla.predict import main

    sys.exit(main())
