"""Describable Textures (Cimpoi et al., CVPR 2014)."""

from .base import SplitDataset, registered


@registered
class DescribableTextures(SplitDataset):
    """47 textures. CoOp splits all images anew and does not use the ten official splits."""

    dataset_dir = "dtd"
    image_folder = "images"
    template = "{} texture."
