"""python -m tlla.predict, and predict.py."""

import sys

if __name__ == "__main__":
    from .. import command_line
    from .flags import parse_args

    command_line.start(__file__)
    parse_args()  # before the import of torch, which --help and a wrong flag do not need
    from .command import main

    sys.exit(main())
