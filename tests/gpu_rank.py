"""One of several processes of torchrun: python gpu_rank.py FILE, then train.py's arguments.

Number 1 fails after the first epoch, and makes FILE just before.
"""

import sys
from pathlib import Path

from dassl.engine import SimpleTrainer

import train
from tlla.errors import InputError
from trainers.harness import distributed

after_epoch = SimpleTrainer.after_epoch


def fails(trainer: SimpleTrainer) -> None:
    """The other process goes on to the second epoch, and waits there for this one."""
    after_epoch(trainer)
    if distributed.rank() == 1:
        Path(sys.argv[1]).touch()
        raise InputError("its disk is full")


SimpleTrainer.after_epoch = fails
sys.exit(train.main(sys.argv[2:]))
