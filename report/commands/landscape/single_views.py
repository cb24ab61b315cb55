"""Single views of test images: the ones that STSS likes most and least (arXiv 2501.18864, eq. 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlla.errors import InputError
from tlla.methods.stss import STSS
from tlla.prompts.classifier import PromptClassifier
from tlla.views.encode import ViewEncoder
from tlla.views.make import make_views
from trainers.harness.image_data import read_item
from trainers.harness.view_data import view_config

from ...prompt_runs import PromptRun


@dataclass(frozen=True)
class View:
    """One view of a test image."""

    index: int  # the image's number
    classname: str  # the image's class
    number: int  # number of the view; 0 is the centre crop
    kind: str  # "low" or "high": whose score it has among all views
    scores: dict[str, float]  # STSS's score by run
    features: Tensor  # normalised, (E,)
    pixels: np.ndarray  # (H, W, 3) uint8

    @property
    def label(self) -> str:
        """For a picture."""
        return f"image {self.index}, {self.classname}\nview {self.number}: {self.kind}est\nSTSS score"

    def describe(self) -> dict[str, Any]:
        """For the JSON file."""
        names = ("index", "classname", "number", "kind", "scores")
        return {name: vars(self)[name] for name in names}


@torch.no_grad()
def lowest_and_highest(runs: Sequence[PromptRun], index: int) -> list[View]:
    """The views of a test image with the lowest and the highest STSS score, averaged over the runs.

    Views and settings are those of the first run's TRAINER.TLLA.

    Raises:
        InputError: There is no such image, or there are no two views.
    """
    trainer = runs[0].trainer
    items, config = trainer.dm.dataset.test, view_config(trainer.cfg, trainer.cfg.TRAINER.TLLA)
    if not 0 <= index < len(items):
        raise InputError(f"--image must lie between 0 and {len(items) - 1}, but got {index}")
    if config.n_views < 2:
        raise InputError(f"TRAINER.TLLA.N_VIEWS must be at least 2 to choose from, but is {config.n_views}")
    pixels = make_views(read_item(items, index), index, config)
    encode = ViewEncoder(trainer.clip_model, trainer.cfg.TRAINER.TLLA.VIEW_BATCH, trainer.autocast)
    features = encode(pixels[None])[0]  # (V, E)
    scores = {run.name: stss_scores(run, features, trainer.cfg.TRAINER.TLLA, config.seed) for run in runs}
    mean = torch.stack(list(scores.values())).mean(dim=0)
    return [
        View(
            index=index,
            classname=trainer.lab2cname[items[index].label],
            number=number,
            kind=kind,
            scores={name: own[number].item() for name, own in scores.items()},
            features=features[number],
            pixels=to_uint8(pixels[number]),
        )
        for kind, number in (("low", int(mean.argmin())), ("high", int(mean.argmax())))
    ]


def stss_scores(run: PromptRun, features: Tensor, node: Any, seed: int) -> Tensor:
    """Scores of one image's views, (V, E) -> (V,)."""
    stss = STSS(rho=node.RHO, lam=node.LAMBDA, n_perturb=node.N_PERTURB)
    stss.start(PromptClassifier(run.trainer.model), seed)
    return stss.scores(features[None]).score[0].cpu()


def to_uint8(pixels: Tensor) -> np.ndarray:
    """(3, H, W), uint8 or float in 0..1 -> (H, W, 3) uint8."""
    whole = pixels if pixels.dtype == torch.uint8 else (255 * pixels).round().to(torch.uint8)
    return whole.permute(1, 2, 0).numpy()
