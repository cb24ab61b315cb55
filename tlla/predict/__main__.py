"""python -m tlla.predict, and predict.py."""

import sys

if __name__ == "__main__":
    from .. import command_line
    from .flags import parse_args

    command_line.start(__file__)
    parse_args()  # here first, as --help and a wrong flag need no torch
    from .command import main

    sys.exit(main())
