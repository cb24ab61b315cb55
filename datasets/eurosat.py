"""EuroSAT: land use in Sentinel-2 images, the RGB version (Helber et al., 2019)."""

import random

from .base import SplitDataset, registered
from .splits import Parts, list_classes, split_items

RENAMED = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


@registered
class EuroSAT(SplitDataset):
    """10 classes, named in words."""

    dataset_dir = "eurosat"
    image_folder = "2750"
    template = "a centered satellite photo of {}."

    def make_split(self, rng: random.Random) -> Parts:
        """Splits all images anew, under the names of RENAMED."""
        return split_items(list_classes(self.image_dir, self.advice(), rename=RENAMED), rng)
