"""Every trainer that learns, with every TEST.FINAL_MODEL: killed and resumed, tested again, repeated from its record.

The trainers are those of the registry that learn, so that a new one is covered by itself.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from benchmark import CLASSES, Workplace
from dassl.engine import TRAINER_REGISTRY, TrainerX
from kinds import LEARN

import train
from trainers.prompt_trainer import PromptTrainer

CELLS = [*((name, "last_step") for name in LEARN), ("SAPT", "best_val"), ("TipAdapterF", "best_val")]
SMALL = ("OPTIM.MAX_EPOCH", "2", "TRAINER.TLLA.N_VIEWS", "2", "TRAINER.TLLA.TOP_S", "1", "TRAINER.TLLA.N_PERTURB", "1")
COSTS = ("seconds", "images_per_second", "seconds_per_image", "method_seconds_per_image", "peak_memory_mb")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("matrix"), CLASSES[:2])


class Cell(NamedTuple):
    """One trainer with one FINAL_MODEL, and the folder of its uninterrupted run."""

    place: Workplace
    trainer: str
    final: str

    @property
    def straight(self) -> str:
        return f"{self.trainer}-{self.final}"

    def argv(self, output: str, *flags: str) -> list[str]:
        return self.place.argv(self.trainer, output, *flags, *SMALL, "TEST.FINAL_MODEL", self.final)

    def run(self, output: str, *flags: str) -> None:
        assert train.main(self.argv(output, *flags)) == 0

    def folder(self, output: str) -> Path:
        return self.place.folder / output

    def record(self, output: str) -> dict:
        return json.loads((self.folder(output) / "results.json").read_text())

    def found(self, output: str) -> dict:
        """All that a run has found: its results but for time and memory, with every prediction."""
        splits = self.record(output)["splits"]
        return {
            split: [{k: v for k, v in entries.items() if k not in COSTS}, self.place.predictions(output, split)]
            for split, entries in splits.items()
        }


def kill(cell: Cell, output: str, *flags: str) -> None:
    """Runs, stops in the second epoch, or if there are no epochs, before anything is saved, and resumes."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    kind = TRAINER_REGISTRY.get(cell.trainer)
    step = kind.forward_backward

    def step_or_stop(trainer, batch):
        return (stop if (trainer.epoch, trainer.batch_idx) == (1, 1) else step)(trainer, batch)

    has_epochs = step is not TrainerX.forward_backward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, *(("forward_backward", step_or_stop) if has_epochs else ("save_model", stop)))
        assert train.main(cell.argv(output, *flags)) == 130
    cell.run(output, *flags)


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def cell(place, request) -> Cell:
    """Its run of a drawn seed, killed and resumed, and one that the record of that run alone repeats."""
    cell = Cell(place, *request.param)
    output = f"{cell.straight}-killed"
    kill(cell, output, "--seed", "-1")
    record = cell.record(output)
    config = cell.place.folder / f"{output}.yaml"
    config.write_text(yaml.safe_dump(record["config"]))
    argv = ["--config-file", str(config), "--seed", str(record["seed"])]
    assert record["seed"] >= 0 and train.main([*argv, "--output-dir", str(cell.folder(cell.straight))]) == 0
    return cell


def test_the_trainers_are_found():
    assert {"CoOp", "CoCoOp", "FPP", "SAPT", "TLLA", "TipAdapter", "TipAdapterF"} <= set(LEARN)


def test_a_killed_run_resumes_to_the_same_bits_as_one_that_repeats_its_record_with_its_drawn_seed(cell):
    assert cell.found(f"{cell.straight}-killed") == cell.found(cell.straight)


class Forgetful(PromptTrainer):
    """Perturbs by a running mean of its gradients, which it does not save."""

    config_node = "SAPT"
    mean: torch.Tensor | float = 0.0

    def perturbation(self, prompt, gradient):
        self.mean = 0.9 * self.mean + gradient
        return super().perturbation(prompt, self.mean)


class Careful(Forgetful):
    """The same, saved as CONTRIBUTING says."""

    def trainer_state(self, epoch):
        return {**super().trainer_state(epoch), "mean": self.mean}

    def load_trainer_state(self, state):
        super().load_trainer_state(state)
        self.mean = state["mean"]


@pytest.mark.parametrize(("kind", "same"), ((Forgetful, False), (Careful, True)))
def test_a_state_that_is_not_saved_is_found(place, monkeypatch, kind, same):
    """The test of the registered trainers can tell one that forgets its state from one that keeps it."""
    monkeypatch.setattr(TRAINER_REGISTRY, "_obj_map", {**TRAINER_REGISTRY._obj_map, kind.__name__: kind})
    cell = Cell(place, kind.__name__, "last_step")
    cell.run(cell.straight)
    output = f"{kind.__name__}-killed"
    kill(cell, output)
    assert (cell.found(output) == cell.found(cell.straight)) == same


def test_a_test_afterwards_gives_the_same_predictions(cell):
    output, seed = f"{cell.straight}-eval", str(cell.record(cell.straight)["seed"])
    cell.run(output, "--seed", seed, "--eval-only", "--model-dir", str(cell.folder(cell.straight)))
    assert cell.found(output)["test"] == cell.found(cell.straight)["test"]
