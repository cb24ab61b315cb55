"""Facts about the datasets: sizes of the splits, licences, where the files are. Code and documents read this table.

Checksums are MD5, those that torchvision or Zenodo has; None: none is published. Sizes are those of the downloads.
"""

from dataclasses import dataclass

CLASSNAMES_ID = "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"  # CoOp's classnames.txt of ImageNet


def drive_url(file_id: str) -> str:
    """The page of a file on Google Drive."""
    return f"https://drive.google.com/file/d/{file_id}/view"


@dataclass(frozen=True)
class Download:
    """A file to download."""

    name: str  # file name, in the dataset's folder
    url: str = ""  # where it is; empty if it is on Google Drive
    drive: str = ""  # its id on Google Drive
    md5: str | None = None  # published checksum
    unpack: str | None = None  # the folder to unpack it in, relative to the dataset's; None: it is no archive
    strip: str = ""  # folder inside the archive that is left out of the paths; files outside it are not unpacked
    inner: str = ""  # an archive inside the archive to unpack after it
    gives: str = ""  # what is in the dataset's folder once the archive is unpacked


@dataclass(frozen=True)
class CatalogEntry:
    """A dataset."""

    folder: str  # its folder, below the data root
    classes: int
    # Train, val and test images in the published split, CoOp's if it has one; None: no such part.
    counts: tuple[int | None, int | None, int]
    licence: str
    size: str
    page: str
    tree: tuple[tuple[str, str], ...]  # the expected tree below its folder: (path, what it is)
    split_id: str = ""  # id of the split file on Google Drive
    sources: tuple[Download, ...] = ()  # what a program can download
    by_hand: str = ""  # what has to be done by hand


_NAMES = ("classnames.txt", "CoOp's class names; ImageNet's own copy is found too")
_NAMES_SOURCE = Download("classnames.txt", drive=CLASSNAMES_ID)
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"

CATALOG: dict[str, CatalogEntry] = {
    "ImageNet": CatalogEntry(
        "imagenet",
        1000,
        (1281167, None, 50000),
        "research and education only",
        "145 GB",
        "https://image-net.org",
        (
            ("images/train/", "1000 folders: n01440764, n01443537 ..."),
            ("images/val/", "the same folders; serves for val and test"),
            ("classnames.txt", "CoOp's class names"),
        ),
        sources=(_NAMES_SOURCE,),
        by_hand="the images need an account: download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
        "https://image-net.org and unpack them into a folder a synset under images/train and images/val",
    ),
    "ImageNetV2": CatalogEntry(
        "imagenetv2",
        1000,
        (None, None, 10000),
        "MIT",
        "1.3 GB",
        "https://github.com/modestyachts/ImageNetV2",
        (("imagenetv2-matched-frequency-format-val/", "1000 folders: 0 to 999"), _NAMES),
        sources=(
            Download(
                "imagenetv2-matched-frequency.tar.gz",
                "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
                unpack=".",
                gives="imagenetv2-matched-frequency-format-val",
            ),
            _NAMES_SOURCE,
        ),
    ),
    "ImageNetSketch": CatalogEntry(
        "imagenet-sketch",
        1000,
        (None, None, 50889),
        "MIT",
        "7.6 GB",
        "https://github.com/HaohanWang/ImageNet-Sketch",
        (("images/", "1000 folders: n01440764 ..."), _NAMES),
        sources=(
            Download(
                "ImageNet-Sketch.zip",
                drive="1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA",
                unpack="images",
                strip="sketch",
                gives="images",
            ),
            _NAMES_SOURCE,
        ),
    ),
    "ImageNetA": CatalogEntry(
        "imagenet-adversarial",
        200,
        (None, None, 7500),
        "MIT",
        "0.7 GB",
        "https://github.com/hendrycks/natural-adv-examples",
        (("imagenet-a/", "200 folders: n01498041 ..."), _NAMES),
        sources=(
            Download(
                "imagenet-a.tar",
                "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
                unpack=".",
                gives="imagenet-a",
            ),
            _NAMES_SOURCE,
        ),
    ),
    "ImageNetR": CatalogEntry(
        "imagenet-rendition",
        200,
        (None, None, 30000),
        "MIT",
        "2.2 GB",
        "https://github.com/hendrycks/imagenet-r",
        (("imagenet-r/", "200 folders: n01443537 ..."), _NAMES),
        sources=(
            Download(
                "imagenet-r.tar",
                "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
                unpack=".",
                gives="imagenet-r",
            ),
            _NAMES_SOURCE,
        ),
    ),
    "ImageNetC": CatalogEntry(
        "imagenet-c",
        1000,
        (None, None, 50000),
        "CC BY 4.0; the pictures are ImageNet's",
        "size not known",
        "https://zenodo.org/records/2235448",
        (
            ("gaussian_noise/1/", "1000 folders: n01440764 ...; DATASET.CORRUPTION, DATASET.SEVERITY"),
            ("gaussian_noise/2/", "the same, and so on: 15 corruptions in 5 severities"),
            _NAMES,
        ),
        sources=(
            *(
                Download(
                    f"{name}.tar",
                    f"https://zenodo.org/records/2235448/files/{name}.tar",
                    md5=md5,
                    unpack=".",
                    gives=first,
                )
                for name, first, md5 in (
                    ("noise", "gaussian_noise", "e80562d7f6c3f8834afb1ecf27252745"),
                    ("blur", "defocus_blur", "2d8e81fdd8e07fef67b9334fa635e45c"),
                    ("weather", "snow", "33ffea4db4d93fe4a428c40a6ce0c25d"),
                    ("digital", "contrast", "89157860d7b10d5797849337ca2e5c03"),
                )
            ),
            _NAMES_SOURCE,
        ),
    ),
    "Caltech101": CatalogEntry(
        "caltech-101",
        100,
        (4128, 1649, 2465),
        "CC BY 4.0",
        "0.14 GB",
        "https://data.caltech.edu/records/mzrjq-6wc02",
        (("101_ObjectCategories/", "102 folders, of which 100 are used"), ("split_zhou_Caltech101.json", "the split")),
        "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
        (
            Download(
                "caltech-101.zip",
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                md5="3138e1922a9193bfa496528edbbc45d0",
                unpack=".",
                strip="caltech-101",
                inner="101_ObjectCategories.tar.gz",
                gives="101_ObjectCategories",
            ),
        ),
    ),
    "OxfordPets": CatalogEntry(
        "oxford_pets",
        37,
        (2944, 736, 3669),
        "CC BY-SA 4.0",
        "0.8 GB",
        f"{_VGG}/pets/",
        (
            ("images/", "7390 images, Abyssinian_1.jpg ..."),
            ("annotations/", "trainval.txt, test.txt; only a new split needs them"),
            ("split_zhou_OxfordPets.json", "the split"),
        ),
        "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
        (
            Download(
                "images.tar.gz",
                f"{_VGG}/pets/data/images.tar.gz",
                md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
                unpack=".",
                gives="images",
            ),
            Download(
                "annotations.tar.gz",
                f"{_VGG}/pets/data/annotations.tar.gz",
                md5="95a8c909bbe2e81eed6a22bccdf3f68f",
                unpack=".",
                gives="annotations",
            ),
        ),
    ),
    "StanfordCars": CatalogEntry(
        "stanford_cars",
        196,
        (6509, 1635, 8041),
        "non-commercial research",
        "1.9 GB",
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        (
            ("cars_train/", "8144 images, 00001.jpg ..."),
            ("cars_test/", "8041 images"),
            ("split_zhou_StanfordCars.json", "the split"),
            ("devkit/", "cars_meta.mat, cars_train_annos.mat; only a new split needs them"),
            ("cars_test_annos_withlabels.mat", "the same"),
        ),
        "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
        by_hand="the authors' links are dead (404); take a mirror that keeps the original file names, for example one "
        "of those in https://github.com/pytorch/vision/issues/7545, and move its images to cars_train/ and cars_test/",
    ),
    "OxfordFlowers": CatalogEntry(
        "oxford_flowers",
        102,
        (4093, 1633, 2463),
        "not stated",
        "0.35 GB",
        f"{_VGG}/flowers/102/",
        (
            ("jpg/", "8189 images, image_00001.jpg ..."),
            ("split_zhou_OxfordFlowers.json", "the split"),
            ("imagelabels.mat", "only a new split needs it"),
            ("cat_to_name.json", "the same"),
        ),
        "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
        (
            Download(
                "102flowers.tgz",
                f"{_VGG}/flowers/102/102flowers.tgz",
                md5="52808999861908f626f3c1f4e79d11fa",
                unpack=".",
                gives="jpg",
            ),
            Download(
                "imagelabels.mat",
                f"{_VGG}/flowers/102/imagelabels.mat",
                md5="e0620be6f572b9609742df49c70aed4d",
            ),
            Download("cat_to_name.json", drive="1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"),
        ),
    ),
    "Food101": CatalogEntry(
        "food-101",
        101,
        (50500, 20200, 30300),
        "research; the photographs are Foodspotting's",
        "5.0 GB",
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        (("images/", "101 folders of 1000 images"), ("split_zhou_Food101.json", "the split")),
        "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
        (
            Download(
                "food-101.tar.gz",
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                md5="85eeb15f3717b99a5da872d97d918f87",
                unpack=".",
                strip="food-101",
                gives="images",
            ),
        ),
    ),
    "FGVCAircraft": CatalogEntry(
        "fgvc_aircraft",
        100,
        (3334, 3333, 3333),
        "non-commercial research",
        "2.8 GB",
        f"{_VGG}/fgvc-aircraft/",
        (
            ("images/", "10000 images, 0034309.jpg ..."),
            ("variants.txt", "the classes, in order"),
            ("images_variant_{train,val,test}.txt", "the official split"),
        ),
        sources=(
            Download(
                "fgvc-aircraft-2013b.tar.gz",
                f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                unpack=".",
                strip="fgvc-aircraft-2013b/data",
                gives="variants.txt",
            ),
        ),
    ),
    "SUN397": CatalogEntry(
        "sun397",
        397,
        (15880, 3970, 19850),
        "research",
        "39 GB",
        "https://vision.princeton.edu/projects/2010/SUN/",
        (
            ("SUN397/", "folders by letter: a/abbey/sun_aaa....jpg"),
            ("split_zhou_SUN397.json", "the split"),
            ("ClassName.txt, {Training,Testing}_01.txt", "only a new split needs them"),
        ),
        "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
        by_hand="the authors' links are dead; take SUN397.tar.gz (MD5 8ca2778205c41d23104230ba66911c7a) from a mirror "
        "and unpack it; with CoOp's split file the partition files are not needed",
    ),
    "DescribableTextures": CatalogEntry(
        "dtd",
        47,
        (2820, 1128, 1692),
        "research",
        "0.6 GB",
        f"{_VGG}/dtd/",
        (("images/", "47 folders of 120 images"), ("split_zhou_DescribableTextures.json", "the split")),
        "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
        (
            Download(
                "dtd-r1.0.1.tar.gz",
                f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
                md5="fff73e5086ae6bdbea199a49dfb8a4c1",
                unpack=".",
                strip="dtd",
                gives="images",
            ),
        ),
    ),
    "EuroSAT": CatalogEntry(
        "eurosat",
        10,
        (13500, 5400, 8100),
        "MIT",
        "0.09 GB",
        "https://github.com/phelber/eurosat",
        (("2750/", "10 folders, 27000 images"), ("split_zhou_EuroSAT.json", "the split")),
        "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
        (
            Download(
                "EuroSAT.zip",
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                md5="c8fa014336c82ac7804f0398fcb19387",
                unpack=".",
                gives="2750",
            ),
        ),
    ),
    "UCF101": CatalogEntry(
        "ucf101",
        101,
        (7639, 1898, 3783),
        "not stated",
        "size not known",
        "https://www.crcv.ucf.edu/data/UCF101.php",
        (
            ("UCF-101-midframes/", "101 folders, the middle frame of each video"),
            ("split_zhou_UCF101.json", "the split"),
            ("ucfTrainTestlist/", "only a new split needs it"),
        ),
        "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
        (
            Download(
                "UCF-101-midframes.zip",
                drive="10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O",
                unpack=".",
                gives="UCF-101-midframes",
            ),
        ),
    ),
}
