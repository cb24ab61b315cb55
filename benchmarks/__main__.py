"""All benchmarks, one after the other: ``python -m benchmarks``. Arguments go to each of them."""

import subprocess
import sys

NAMES = ("views", "class_set", "training", "tpt_and_tlla", "scaling", "memory")

if __name__ == "__main__":
    codes = []
    for name in NAMES:
        print(f"\n== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]).returncode)
    sys.exit(max(codes))
