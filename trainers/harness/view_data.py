"""Test images with all their views, and the config keys that say which."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from yacs.config import CfgNode

from tlla.errors import InputError
from tlla.views.make import ViewConfig, draw_crops, make_views
from tlla.views.rounds import check_margin

from .image_data import read_item
from .kept_views import KeptViews

VIEW_KEYS = ("N_VIEWS", "AUGMIX", "CROP_SCALE", "ON_DEVICE")  # those that change the views, the seed apart


def add_view_keys(node: CfgNode) -> None:
    """Adds the keys of the views, with TPT's defaults."""
    node.N_VIEWS = 64  # the centre crop and 63 augmented ones
    node.AUGMIX = False  # AugMix on top of crop and flip; TPT and TLLA use it on the fine-grained sets only
    node.CROP_SCALE = (0.08, 1.0)  # range of the crops' area
    node.SEED = -1  # seed of views and perturbations; -1: the run's, SEED or what is drawn for it
    node.VIEW_BATCH = 512  # views that pass the image encoder at once; changes no result
    node.MARGIN = 0.0  # an image whose two highest probabilities differ by this needs no more views; 0: all views
    node.ON_DEVICE = False  # True: views are made on the GPU, up to one grey level of 255 from those made on the CPU


def view_config(cfg: CfgNode, node: CfgNode) -> ViewConfig:
    """The views that a node with these keys asks for; InputError by key if they cannot be made."""
    if node.ON_DEVICE and node.AUGMIX:
        raise InputError("ON_DEVICE makes crops and flips, but no AugMix: set it or AUGMIX to False")
    if node.VIEW_BATCH < 1:
        raise InputError(f"VIEW_BATCH must be at least 1, but got {node.VIEW_BATCH}")
    check_margin(node.MARGIN, node.N_VIEWS)
    return ViewConfig(
        size=cfg.INPUT.SIZE[0],
        n_views=node.N_VIEWS,
        scale=tuple(node.CROP_SCALE),
        augmix=node.AUGMIX,
        seed=node.SEED if node.SEED >= 0 else max(cfg.SEED, 0),
    )


class ViewDataset(Dataset):
    """Items are dicts: img (V, 3, H, W), label, index. The views depend on the seed and the index alone.

    With `on_device`, img is the decoded image, (3, H, W) uint8, and crops (V - 1, 5) says what to make of it there.
    If the features of the views were kept, items have features (V, E), and img only if `pixels` are wanted, too.
    """

    def __init__(
        self,
        items: Sequence[Any],
        config: ViewConfig,
        on_device: bool = False,
        kept: KeptViews | None = None,
        pixels: bool = False,
    ):
        self.items, self.config, self.on_device, self.kept, self.pixels = items, config, on_device, kept, pixels

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = {"label": self.items[index].label, "index": index}
        features = self.kept.row(index) if self.kept else None
        if features is not None:
            row["features"] = features
            if not self.pixels:
                return row
        image = read_item(self.items, index)
        if self.kept and features is None:
            raise self.kept.damaged(f"those of {self.items[index].impath} are missing")
        if not self.on_device:
            return {"img": make_views(image, index, self.config), **row}
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return {"img": pixels, "crops": torch.from_numpy(draw_crops(*image.size, index, self.config)), **row}
