"""Backbone, optional head, linear classifier: the model of trainers that build none of their own."""

from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import count_num_param, load_pretrained_weights

from .build import build_backbone, build_head


class SimpleNet(nn.Module):
    """A classifier from the MODEL settings.

    Args:
        cfg: The configuration tree.
        model_cfg: Its MODEL node, or one like it.
        num_classes: 0 means features only.
        kwargs: Passed to backbone and head.
    """

    def __init__(self, cfg: CfgNode, model_cfg: CfgNode, num_classes: int, **kwargs: Any):
        super().__init__()
        backbone, head = model_cfg.BACKBONE, model_cfg.HEAD
        self.backbone = build_backbone(backbone.NAME, cfg.VERBOSE, pretrained=backbone.PRETRAINED, **kwargs)
        self._fdim = self.backbone.out_features
        self.head = None
        if head.NAME and head.HIDDEN_LAYERS:
            self.head = build_head(
                head.NAME,
                cfg.VERBOSE,
                in_features=self._fdim,
                hidden_layers=head.HIDDEN_LAYERS,
                activation=head.ACTIVATION,
                bn=head.BN,
                dropout=head.DROPOUT,
                **kwargs,
            )
            self._fdim = self.head.out_features
        self.classifier = nn.Linear(self._fdim, num_classes) if num_classes > 0 else None

    @property
    def fdim(self) -> int:
        """Width of the features."""
        return self._fdim

    def forward(self, x: Tensor, return_feature: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> scores (B, K), with features (B, D) on request; without classifier only these."""
        features = self.backbone(x)  # (B, D)
        if self.head is not None:
            features = self.head(features)  # (B, D)
        if self.classifier is None:
            return features
        scores = self.classifier(features)  # (B, K)
        return (scores, features) if return_feature else scores


def build_simple_net(cfg: CfgNode, num_classes: int, device: torch.device) -> tuple[SimpleNet, Any, Any]:
    """Builds the model, its optimizer and its schedule."""
    model = SimpleNet(cfg, cfg.MODEL, num_classes)
    if cfg.MODEL.INIT_WEIGHTS:
        load_pretrained_weights(model, cfg.MODEL.INIT_WEIGHTS)
    model.to(device)
    print(f"# params: {count_num_param(model):,}")
    optim = build_optimizer(model, cfg.OPTIM)
    return model, optim, build_lr_scheduler(optim, cfg.OPTIM)
