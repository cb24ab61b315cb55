"""Predicts one's own images: python predict.py --help. The same as python -m tlla.predict."""

import sys

if __name__ == "__main__":
    from tlla.startup import before_torch

    before_torch()
    from tlla.predict import main

    sys.exit(main())
