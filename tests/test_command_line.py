"""What scripts do before they import torch."""

import os
import subprocess
import sys

import pytest
from benchmark import REPO

SCRIPT = """
import os, signal, sys
from tlla.startup import before_torch
before_torch()
print("torch" in sys.modules, signal.getsignal(signal.SIGINT).name, os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(given, spins):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {key: value for key, value in os.environ.items() if key not in names} | given
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=REPO, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "SIG_DFL", spins], done.stderr
