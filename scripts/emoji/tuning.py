"""Prompts for the ablation: CoOp over learning rates, SAPT over rho, on source train; scored on source val.

In plain torch, on features of augmented views that are computed once: the same objective and schedule as the trainers'
(crops are bilinear here and bicubic there).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from dassl.data.datasets import build_dataset
from torch import Tensor
from tqdm import tqdm

import train
from tlla.clip import image_size
from tlla.prompts.prompted import PromptedCLIP
from tlla.sharpness import sharpness_step
from tlla.views.encode import ViewEncoder
from tlla.views.make import ViewConfig

EPOCHS, BATCH, SHOTS, SEEDS = 25, 32, 16, (1, 2, 3)
LRS = (0.002, 0.02, 0.05, 0.2)
RHOS = (0.05, 0.1, 0.3, 0.5, 0.7)  # the paper's grid


def view_features(
    model: PromptedCLIP, paths: Sequence[str], scale: tuple[float, float], n_views: int, seed: int
) -> Tensor:
    """Features of all views of images, (N, V, E): the trainer's views."""
    config = ViewConfig(image_size(model.clip), n_views, scale, seed=seed)
    bar = tqdm(paths, desc=f"views {scale[0]:g}-{scale[1]:g}", leave=False, disable=None)
    return ViewEncoder(model.clip).images(bar, config)


def source_parts(name: str) -> tuple[list[str], list[Any], list[Any]]:
    """Class names, train and val items of the source of a family: Emoji or EmojiScenes."""
    dataset = build_dataset(train.build_cfg(train.parse_args(["--trainer", "CoOp", "DATASET.NAME", name])))
    return dataset.classnames, dataset.train_x, dataset.val


class SourceImages:
    """The train and val images of a family's source, their labels, and which of them are val."""

    def __init__(self, model: PromptedCLIP, train_items: Sequence[Any], val_items: Sequence[Any]):
        self.paths = [item.impath for item in (*train_items, *val_items)]
        self.labels = torch.tensor([item.label for item in (*train_items, *val_items)])
        self.is_val = torch.arange(len(self.paths)) >= len(train_items)
        self.model = model

    def view_features(
        self, scale: tuple[float, float], n_views: int, seed: int, chosen: Tensor | None = None
    ) -> Tensor:
        """Features of all views of all images, or of those that a mask has chosen: (N, V, E)."""
        paths = self.paths if chosen is None else [path for path, own in zip(self.paths, chosen, strict=True) if own]
        return view_features(self.model, paths, scale, n_views, seed)

    def few_shot(self, seed: int) -> Tensor:
        """Indices of at most 16 train images of each class."""
        generator = torch.Generator().manual_seed(seed)
        chosen = []
        for label in self.labels.unique().tolist():
            own = ((self.labels == label) & ~self.is_val).nonzero()[:, 0]
            chosen.append(own[torch.randperm(len(own), generator=generator)[:SHOTS]])
        return torch.cat(chosen)


def fit(model: PromptedCLIP, features: Tensor, labels: Tensor, lr: float, rho: float, seed: int) -> Tensor:
    """SAPT (rho = 0: CoOp) on features of augmented views, (N, epochs, E): the schedule of the trainers' config."""
    generator = torch.Generator().manual_seed(seed)
    ctx = model.prompt_learner.ctx.detach().clone().requires_grad_(True)
    optimizer = torch.optim.SGD([ctx], lr=lr, momentum=0.9, weight_decay=5e-4)
    epochs = features.shape[1]
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 1e-5 if epoch == 0 else 0.5 * lr * (1 + math.cos(math.pi * epoch / epochs))
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH):
            if len(batch) == BATCH:
                ctx.grad = sharpness_step(_loss(model, features[batch, epoch], labels[batch]), ctx, rho, 1.0).gradient
                optimizer.step()
    return ctx.detach()


def _loss(model: PromptedCLIP, features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda ctx: F.cross_entropy(model.logits(features, model.encode_text(ctx)), labels)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Top-1 in %."""
    return 100.0 * (scores.argmax(dim=-1) == labels).float().mean().item()


def tune_prompts(model: PromptedCLIP, source: SourceImages) -> dict:
    """Trains CoOp over learning rates, then SAPT over rho at CoOp's best.

    Returns:
        lr and rho that are best on val, the prompts of each seed that they give, and one row for each trial.
    """
    train_views = source.view_features((0.08, 1.0), EPOCHS + 1, seed=0)
    plain, val = train_views[:, 0], source.is_val
    rows, prompts = [], {}

    def trial(lr: float, rho: float) -> float:
        contexts, scores = [], []
        for seed in SEEDS:
            shots = source.few_shot(seed)
            contexts.append(fit(model, train_views[shots, 1:], source.labels[shots], lr, rho, seed))
            with torch.no_grad():
                logits = model.logits(plain[val], model.encode_text(contexts[-1]))
            scores.append(accuracy(logits, source.labels[val]))
        prompts[lr, rho] = contexts
        scores = torch.tensor(scores)
        rows.append({"method": "SAPT" if rho else "CoOp", "lr": lr, "rho": rho} | mean_and_std("val", scores))
        print(rows[-1], flush=True)
        return scores.mean().item()

    with torch.no_grad():
        zero = accuracy(model.logits(plain[val], model.encode_text()), source.labels[val])
    rows.append({"method": "hand-written", "lr": 0.0, "rho": 0.0, "val": zero, "val std": 0.0})
    best_lr = max(LRS, key=lambda lr: trial(lr, 0.0))
    best_rho = max(RHOS, key=lambda rho: trial(best_lr, rho))
    chosen = {"CoOp": prompts[best_lr, 0.0], "SAPT": prompts[best_lr, best_rho]}
    return {"lr": best_lr, "rho": best_rho, "prompts": chosen, "rows": rows}


def mean_and_std(name: str, values: Tensor) -> dict[str, float]:
    return {name: values.mean().item(), f"{name} std": values.std().item() if len(values) > 1 else 0.0}
