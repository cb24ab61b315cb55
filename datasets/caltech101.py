"""Caltech-101 without its background class (Fei-Fei et al., 2004)."""

from .base import SplitDataset, registered


@registered
class Caltech101(SplitDataset):
    """100 classes: of the two folders of faces, CoOp keeps the harder one."""

    dataset_dir = "caltech-101"
    image_folder = "101_ObjectCategories"
    ignored = ("BACKGROUND_Google", "Faces_easy")
    renamed = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
