"""python -m tlla.predict."""

import sys

from .command import main

sys.exit(main())
