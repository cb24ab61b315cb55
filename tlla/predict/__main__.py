"""python -m tlla.predict, and predict.py."""

import sys

if __name__ == "__main__":
    from ..startup import before_torch

    before_torch()
    from .command import main

    sys.exit(main())
