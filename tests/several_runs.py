"""Run by torchrun: several runs of train.py, one after the other, in the same processes.

    torchrun ... several_runs.py runs.json

The file lists {"argv": [...], "code": expected exit code, "epochs": after so many the run is stopped as by Ctrl-C}.
"""

import json
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dassl.engine import SimpleTrainer

import train
from trainers.harness import distributed


def stops_after(epochs: int):
    """A patch that interrupts training after so many epochs; 0: never."""
    after_epoch = SimpleTrainer.after_epoch

    def stops(self):
        after_epoch(self)
        if self.epoch + 1 == epochs:
            raise KeyboardInterrupt

    return mock.patch.object(SimpleTrainer, "after_epoch", stops)


if __name__ == "__main__":
    leave = distributed.stop
    distributed.stop = distributed.leave = lambda *_: None  # the runs share the processes and their group
    for run in json.loads(Path(sys.argv[1]).read_text()):
        with stops_after(run["epochs"]):
            code = train.main(run["argv"])
        print(f"finished {run['argv'][1]} {code}", file=sys.stderr)
        if code != run["code"]:
            sys.exit(f"exit code {code} instead of {run['code']}: {run['argv']}")
    leave()
