"""Finished runs of CoOp, SAPT or TLLA, opened to look around their prompts: losses of any context, in full precision.

Letters in shapes: n contexts, B images, K classes, L context tokens, D text width, E joint space.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dassl.data.transforms import build_transform
from torch import Tensor
from torch.utils.data import DataLoader

from tlla.errors import InputError
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.records.record import Record
from tlla.workers import fit_workers
from trainers.harness.image_data import ImageDataset
from trainers.prompt_trainer import PromptTrainer

from .named import HELP, add_set_argument, named_runs
from .reopen import check_tested_prompt, class_of_run, open_run, quietly


@dataclass(frozen=True)
class Images:
    """Image features, normalised, (B, E), and labels, (B,)."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class PromptRun:
    """A run under the name that the user gave it."""

    name: str
    folder: Path
    trainer: PromptTrainer

    @property
    def seed(self) -> int:
        """The run's."""
        return self.trainer.cfg.SEED

    @property
    def origin(self) -> dict[str, Any]:
        """What a JSON file says of the run."""
        sha256 = self.training_sha256
        return {"name": self.name, "run": str(self.folder), "seed": self.seed, "train_x_sha256": sha256}

    @property
    def ctx(self) -> Tensor:
        """The context vectors, (L, D), or (K, L, D) if class-specific."""
        return self.trainer.model.prompt_learner.ctx.detach()

    @property
    def words(self) -> str:
        """What the context started from, CTX_INIT; empty: from random numbers."""
        return self.trainer.method_cfg.CTX_INIT

    def words_context(self) -> Tensor:
        """The context vectors of `words`, of the shape of `ctx`."""
        learner = self.trainer.model.prompt_learner
        initial = PromptLearner(
            self.trainer.clip_model,
            learner.classnames,
            ctx_init=self.words,
            csc=learner.csc,
            on_shared=learner.on_shared,
        )
        return initial.ctx.detach()

    @property
    def training_sha256(self) -> str:
        """Fingerprint of the images that the run was trained on."""
        return self.trainer.record.content["split_sha256"]["train_x"]

    def training_images(self, most: int = 0) -> Images:
        """Training images without augmentation: all, or `most` of them, evenly spaced in the order of the classes."""
        items = self.trainer.dm.dataset.train_x
        n = min(most, len(items)) if most else len(items)
        return self.encode([items[i * len(items) // n] for i in range(n)])

    @torch.no_grad()
    def encode(self, items: Sequence[Any]) -> Images:
        """Images as a test sees them."""
        cfg = self.trainer.cfg
        with quietly():
            transform = build_transform(cfg, is_train=False)
        dataset = ImageDataset(cfg, items, transform=transform)
        loader = DataLoader(dataset, cfg.DATALOADER.TEST.BATCH_SIZE, num_workers=cfg.DATALOADER.NUM_WORKERS)
        loader = fit_workers(loader)
        parts = [(self.trainer.encode_image(batch["img"].to(self.trainer.device)), batch["label"]) for batch in loader]
        features, labels = zip(*parts, strict=True)
        return Images(torch.cat(features), torch.cat(labels).to(self.trainer.device))

    def logits(self, contexts: Tensor, features: Tensor) -> Tensor:
        """Of images under n contexts: (n, L, D) and (B, E) -> (n, B, K)."""
        model = self.trainer.model
        return model.logit_scale * features @ model.encode_text(contexts).mT

    def cross_entropy(self, images: Images) -> Callable[[Tensor], Tensor]:
        """The mean cross entropy of images as a function of contexts, (n, L, D) -> (n,)."""
        return lambda contexts: mean_cross_entropy(self.logits(contexts, images.features), images.labels)


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of the same images under n contexts: (n, B, K) and (B,) -> (n,)."""
    losses = F.cross_entropy(logits.transpose(1, 2), labels.expand(len(logits), -1), reduction="none")  # (n, B)
    return losses.mean(dim=1)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which runs and which images."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help=HELP)
    parser.add_argument("--images", type=int, default=256, help="training images, 0: all (default: 256)")
    add_set_argument(parser)


def open_runs(args: argparse.Namespace) -> list[PromptRun]:
    """The runs of the command line, in its order.

    Raises:
        InputError: A run has no prompt to look around, two of a name share a seed, or their datasets differ.
    """
    if args.images < 0:
        raise InputError(f"--images must be at least 0, but got {args.images}")
    named = named_runs(args.runs).items()
    runs = [open_prompt(name, record, args.set) for name, records in named for record in records]
    seen: dict[tuple[str, int], Path] = {}
    for run in runs:
        if (other := seen.setdefault((run.name, run.seed), run.folder)) != run.folder:
            raise InputError(
                f"{run.folder} and {other} are both seed {run.seed} of {run.name}: give them different names"
            )
        if (own := _setting(run)) != (first := _setting(runs[0])):
            raise InputError(f"{run.folder} is {own}, but {runs[0].folder} is {first}: compare runs of one setting")
    return runs


def _setting(run: PromptRun) -> str:
    cfg = run.trainer.cfg
    return f"a run on {cfg.DATASET.NAME} with {cfg.MODEL.BACKBONE.NAME}"


def open_prompt(name: str, record: Record, opts: Sequence[str] = ()) -> PromptRun:
    """Opens a run in fp32: half precision would hide the small differences that are looked for.

    Raises:
        InputError: It has no prompt of its own that is the same for all images, or no training images, or its newest
            prompt is not the one that it has tested.
    """
    cls, folder = class_of_run(record), record.folder
    if getattr(cls, "learned", "") != PromptTrainer.learned or cls.model_class is not PromptedCLIP:
        raise InputError(f"{folder} is a run of {record.trainer}: name one that learned context vectors, e.g. of CoOp")
    trainer = open_run(record, f"TRAINER.{cls.config_node}.PREC", "fp32", *opts)
    if not trainer.dm.dataset.train_x:
        raise InputError(
            f"{folder} is a run on {trainer.cfg.DATASET.NAME}, which has no training images: name the run that "
            "trained the prompt"
        )
    check_tested_prompt(record, trainer.prompt())
    then, now = ((x.get("split_sha256") or {}).get("train_x") for x in (record.content, trainer.record.content))
    other_data = any(key.startswith("DATASET.") and key != "DATASET.ROOT" for key in opts[::2])
    if then not in (None, now) and not other_data:
        raise InputError(
            f"the list of training images of {folder} is not the one that it was trained on (sha256 {str(now)[:12]}, "
            f"results.json says {str(then)[:12]}): restore it, or train again"
        )
    return PromptRun(name, folder, trainer)
