"""EuroSAT: land use in Sentinel-2 images, the RGB version (Helber et al., 2019)."""

from .base import SplitDataset, registered


@registered
class EuroSAT(SplitDataset):
    """10 classes, named in words."""

    dataset_dir = "eurosat"
    image_folder = "2750"
    template = "a centered satellite photo of {}."
    renamed = {
        "AnnualCrop": "Annual Crop Land",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "River": "River",
        "SeaLake": "Sea or Lake",
    }
