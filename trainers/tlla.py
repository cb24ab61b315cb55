"""TLLA: SAPT's training, STSS at test time (arXiv 2501.18864, section 4, eq. 5-8). No backprop, no parameter update.

With ``--eval-only --model-dir <run>`` the prompt may come from any run that learned one: a SAPT run gives TLLA, a CoOp
run the paper's ablation "STSS+CoOp".
"""

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from tlla.clip import normalize
from tlla.errors import InputError, within
from tlla.selection import check_selection, score_views, select_and_vote
from tlla.sharpness import check_sharpness, random_directions
from tlla.views import ViewConfig

from .base import registered
from .sapt import SAPT
from .view_data import ViewDataset


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.TLLA; docs/ablation.md says where the defaults of N_PERTURB, TOP_S and VOTE come from."""
    node = CfgNode()
    node.N_VIEWS = 64  # the plain view and 63 augmented ones
    node.RHO = 0.5  # norm of the random perturbations of the prompt
    node.LAMBDA = 1.0  # weight of the sharpness in a view's score; 0 is entropy selection
    node.N_PERTURB = 8  # random perturbations R
    node.TOP_S = 16  # views that vote
    node.VOTE = "mean_prob"  # majority, mean_prob, mean_logit
    node.AUGMIX = False  # AugMix on top of crop and flip; the paper uses it on the fine-grained sets only
    node.CROP_SCALE = (0.08, 1.0)  # range of the crops' area
    node.SEED = -1  # seed of views and perturbations; -1: SEED, or 0 if that is negative
    node.VIEW_BATCH = 512  # views that pass the image encoder at once; changes no result
    cfg.TRAINER.TLLA = node


@registered
class TLLA(SAPT):
    """Scores all views of an image by entropy plus sharpness; the lowest ones vote."""

    gives_probabilities = True

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses settings of STSS that cannot work, before anything is loaded."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.TLLA
        with within("TRAINER.TLLA"):
            check_sharpness(node.RHO, node.LAMBDA)
            self.view_config = ViewConfig(
                size=cfg.INPUT.SIZE[0],
                n_views=node.N_VIEWS,
                scale=tuple(node.CROP_SCALE),
                augmix=node.AUGMIX,
                seed=node.SEED if node.SEED >= 0 else max(cfg.SEED, 0),
            )
            check_selection(node.TOP_S, node.N_VIEWS, node.VOTE)
            for key, least in (("N_PERTURB", 0), ("VIEW_BATCH", 1)):
                if node[key] < least:
                    raise InputError(f"{key} must be at least {least}, but got {node[key]}")

    def eval_loader(self, split: str) -> DataLoader:
        """Batches of images with all their views: img (B, V, 3, H, W)."""
        node = self.cfg.TRAINER.TLLA
        items = self.dm.dataset.val if split == "val" else self.dm.dataset.test
        return DataLoader(
            ViewDataset(items, self.view_config),
            batch_size=max(1, node.VIEW_BATCH // node.N_VIEWS),
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
            pin_memory=self.device.type == "cuda",
        )

    def before_test(self) -> None:
        """Text features of the prompt and of its R perturbations, once for all images: (R + 1, K, E)."""
        node = self.cfg.TRAINER.TLLA
        ctx = self.model.prompt_learner.ctx
        directions = random_directions(tuple(ctx.shape), node.N_PERTURB, node.RHO, self.view_config.seed).to(ctx)
        with self.autocast():
            self.text_features = self.model.encode_text(torch.cat([ctx[None], ctx + directions]))

    def model_inference(self, views: Tensor) -> Tensor:
        """Votes of the selected views, (B, V, 3, H, W) -> class distribution (B, K)."""
        node = self.cfg.TRAINER.TLLA
        features = self.encode_image(normalize(views.flatten(0, 1)))  # (B * V, E)
        features = features.view(*views.shape[:2], -1)  # (B, V, E)
        scores = score_views(features, self.text_features, self.model.logit_scale, node.LAMBDA)
        return select_and_vote(scores, node.TOP_S, node.VOTE)
