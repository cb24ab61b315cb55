"""Small trees in the layouts of CoOp's fifteen datasets, with empty files as images, and what a dataset makes of them.

Run by itself, with upstream's Dassl and CoOp on PYTHONPATH, it writes the expectations of test_datasets_parity.py:

    python tests/zoo_trees.py tests/data/zoo_expected.json

Needs numpy and scipy only, so that it runs in upstream's environment.
"""

import hashlib
import importlib
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent.parent / "datasets" / "data"
SEEDS, SHOTS, HALVES = (1, 2, 3), (1, 2, 4, 8, 16), ("all", "base", "new")
NAMES = ("OxfordPets", "Caltech101", "StanfordCars", "OxfordFlowers", "Food101", "FGVCAircraft", "SUN397") + (
    "DescribableTextures",
    "EuroSAT",
    "UCF101",
    "ImageNet",
)  # those with draws
VARIANTS = ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")
MODULES = ("caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "imagenet_a", "imagenet_r") + (
    ("imagenet_sketch", "imagenetv2", "oxford_flowers", "oxford_pets", "stanford_cars", "sun397", "ucf101")
)
NEW_SPLITS = tuple(name for name in NAMES if name not in ("FGVCAircraft", "ImageNet"))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)  # an empty file would be a fault


def write_mat(path, content):
    from scipy.io import savemat  # which is slow to import

    savemat(path, content)


def text(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def sizes(count):
    """Uneven classes, of 5 to 40 images."""
    return [5 + (11 * i) % 36 for i in range(count)]


def class_folders(folder, names, suffix="jpg"):
    """Images in class folders, among them hidden and non-ASCII names; returns [(path, class number)]."""
    rows = []
    for number, (name, count) in enumerate(zip(names, sizes(len(names)), strict=True)):
        for i in range(count):
            path = f"{name}/{'bild_ä_' if i == 3 else 'image_'}{(i * 7) % count:03d}_{i}.{suffix}"
            touch(folder / path)
            rows.append((path, number))
        touch(folder / name / ".hidden")
    return rows


def write_split(path, rows, names):
    """A split in the manner of CoOp's: shuffled, so that labels do not appear in order; 50, 20, 30 %."""
    rng = random.Random(path.name)
    rows = list(rows)
    rng.shuffle(rows)
    parts = {"train": [], "val": [], "test": []}
    for i, (image, label) in enumerate(rows):
        parts[("train", "train", "val", "test", "train", "test")[i % 6]].append([image, label, names[label]])
    for label, name in enumerate(names):  # every class has at least one of each
        for rows_of in parts.values():
            if not any(row[1] == label for row in rows_of):
                rows_of.append([next(r for r, y in rows if y == label), label, name])
    path.write_text(json.dumps(parts))


def make_pets(root):
    folder, rows, lists = root / "oxford_pets", [], {"trainval.txt": [], "test.txt": []}
    breeds = ["Abyssinian", "american_bulldog", "Bengal", "great_pyrenees", "yorkshire_terrier"]
    for number, (breed, count) in enumerate(zip(breeds, sizes(5), strict=True)):
        for i in range(count):
            touch(folder / "images" / f"{breed}_{i}.jpg")
            rows.append((f"{breed}_{i}.jpg", number))
            lists["test.txt" if i % 3 == 0 else "trainval.txt"].append(f"{breed}_{i} {number + 1} 1 1")
    for name, lines in lists.items():
        text(folder / "annotations" / name, lines)
    write_split(folder / "split_zhou_OxfordPets.json", rows, [b.lower() for b in breeds])


def make_folders(root, folder, images, classes, split, names=None):
    rows = class_folders(root / folder / images, classes)
    write_split(root / folder / f"split_zhou_{split}.json", rows, names or classes)


def make_caltech(root):
    classes = ["Faces", "Leopards", "Motorbikes", "accordion", "airplanes", "anchor", "yin_yang"]
    names = ["face", "leopard", "motorbike", "accordion", "airplane", "anchor", "yin_yang"]
    make_folders(root, "caltech-101", "101_ObjectCategories", classes, "Caltech101", names)
    for name in ("BACKGROUND_Google", "Faces_easy"):
        touch(root / "caltech-101/101_ObjectCategories" / name / "image_0001.jpg")


def make_cars(root):
    folder, rows = root / "stanford_cars", []
    models = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi TTS Coupe 2012"]
    kind = [("fname", object), ("class", object)]
    tables = {"cars_train": [], "cars_test": []}
    for number, count in enumerate(sizes(3)):
        for i in range(count):
            part = "cars_test" if i % 2 else "cars_train"
            tables[part].append((f"{len(tables[part]) + 1:05d}.jpg", number + 1))
    for part, table in tables.items():
        random.Random(part).shuffle(table)
        for name, label in table:
            touch(folder / part / name)
            rows.append((f"{part}/{name}", label - 1))
        records = np.array([(name, label) for name, label in table], dtype=kind).reshape(1, -1)
        file = "devkit/cars_train_annos.mat" if part == "cars_train" else "cars_test_annos_withlabels.mat"
        (folder / "devkit").mkdir(exist_ok=True)
        write_mat(folder / file, {"annotations": records})
    write_mat(folder / "devkit/cars_meta.mat", {"class_names": np.array(models, dtype=object).reshape(1, -1)})
    write_split(
        folder / "split_zhou_StanfordCars.json",
        rows,
        ["2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Audi TTS Coupe"],
    )


def make_flowers(root):
    folder = root / "oxford_flowers"
    labels = [number + 1 for number, count in enumerate(sizes(6)) for _ in range(count)]
    random.Random(0).shuffle(labels)
    for i in range(len(labels)):
        touch(folder / "jpg" / f"image_{i + 1:05d}.jpg")
    names = ["pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "lily"]
    write_mat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    (folder / "cat_to_name.json").write_text(json.dumps({str(i + 1): n for i, n in enumerate(names)}))
    rows = [(f"image_{i + 1:05d}.jpg", label - 1) for i, label in enumerate(labels)]
    write_split(folder / "split_zhou_OxfordFlowers.json", rows, names)


def make_aircraft(root):
    folder, variants = root / "fgvc_aircraft", ["707-320", "727-200", "A300B4", "Cessna 172", "DR-400"]
    lists = {"train": [], "val": [], "test": []}
    for number, (variant, count) in enumerate(zip(variants, sizes(5), strict=True)):
        for i in range(count):
            touch(folder / "images" / f"{number}{i:06d}.jpg")
            lists[("train", "val", "test")[i % 3]].append(f"{number}{i:06d} {variant}")
    for part, lines in lists.items():
        random.Random(part).shuffle(lines)
        text(folder / f"images_variant_{part}.txt", lines)
    text(folder / "variants.txt", variants)


def make_sun(root):
    folder, rows = root / "sun397", []
    classes = ["/a/abbey", "/a/apse/indoor", "/b/bakery/shop", "/v/volcano", "/y/youth_hostel"]
    lists = {"Training_01.txt": [], "Testing_01.txt": []}
    for number, (name, count) in enumerate(zip(classes, sizes(5), strict=True)):
        for i in range(count):
            path = f"{name[1:]}/sun_{i:04d}.jpg"
            touch(folder / "SUN397" / path)
            rows.append((path, number))
            lists["Testing_01.txt" if i % 2 else "Training_01.txt"].append("/" + path)
    for name, lines in lists.items():
        text(folder / name, lines)
    text(folder / "ClassName.txt", classes)
    names = ["abbey", "indoor apse", "shop bakery", "volcano", "youth_hostel"]
    write_split(folder / "split_zhou_SUN397.json", rows, names)


def make_ucf(root):
    folder, rows = root / "ucf101", []
    actions = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "TaiChi": "Tai_Chi", "YoYo": "Yo_Yo", "Archery": "Archery"}
    lists = {"trainlist01.txt": [], "testlist01.txt": []}
    for number, ((action, name), count) in enumerate(zip(actions.items(), sizes(4), strict=True)):
        for i in range(count):
            video = f"v_{action}_g01_c{i:02d}"
            touch(folder / "UCF-101-midframes" / name / f"{video}.jpg")
            rows.append((f"{name}/{video}.jpg", number))
            if i % 3:
                lists["trainlist01.txt"].append(f"{action}/{video}.avi {number + 1}")
            else:
                lists["testlist01.txt"].append(f"{action}/{video}.avi")
    for name, lines in lists.items():
        text(folder / "ucfTrainTestlist" / name, lines)
    text(folder / "ucfTrainTestlist/classInd.txt", [f"{i + 1} {a}" for i, a in enumerate(actions)])
    write_split(folder / "split_zhou_UCF101.json", rows, list(actions.values()))


def synsets(file="imagenet_tpt.txt"):
    """[(synset, name)]."""
    return [line.partition(" ")[::2] for line in (DATA / file).read_text(encoding="utf-8").splitlines()]


def make_imagenet(root):
    names = synsets()
    for i, (synset, _) in enumerate(names):
        for j in range(20 if i % 40 == 0 else 1 + i % 3):
            touch(root / f"imagenet/images/train/{synset}/{synset}_{j * 7 % 20}.JPEG")
        touch(root / f"imagenet/images/val/{synset}/ILSVRC2012_val_{i:08d}.JPEG")
        touch(root / f"imagenetv2/imagenetv2-matched-frequency-format-val/{i}/{i:04x}.jpeg")
        touch(root / f"imagenet-sketch/images/{synset}/sketch_{i % 7}.JPEG")
    for folder, below, file in (
        ("imagenet-adversarial", "imagenet-a", "imagenet_a.txt"),
        ("imagenet-rendition", "imagenet-r", "imagenet_r.txt"),
    ):
        for i, (synset, _) in enumerate(synsets(file)):
            for j in range(1 + i % 3):
                touch(root / folder / below / synset / f"art_{j}.jpg")
        touch(root / folder / below / "README.txt")
    for folder in ("imagenet", "imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition"):
        text(root / folder / "classnames.txt", [f"{s} {n}" for s, n in names])


def make_trees(root):
    """All fifteen, in `root`."""
    make_pets(root)
    make_caltech(root)
    make_cars(root)
    make_flowers(root)
    make_folders(root, "food-101", "images", ["cheese_plate", "cheesecake", "pizza", "waffles"], "Food101")
    make_aircraft(root)
    make_sun(root)
    make_folders(root, "dtd", "images", ["banded", "dotted", "zigzagged"], "DescribableTextures")
    eurosat = {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "Highway": "Highway or Road",
        "River": "River",
        "SeaLake": "Sea or Lake",
    }
    make_folders(root, "eurosat", "2750", list(eurosat), "EuroSAT", list(eurosat.values()))
    make_ucf(root)
    make_imagenet(root)
    return root


def settings():
    """(key, name, seed, shots, half) of everything that is compared."""
    for name in NAMES:
        for half in HALVES:
            yield f"{name} {half}", name, 1, -1, half
            for seed in SEEDS:
                for shots in SHOTS:
                    yield f"{name} {half} {shots} shots seed {seed}", name, seed, shots, half
    for name in VARIANTS:
        yield f"{name} all", name, 1, -1, "all"


def describe(dataset, root):
    """Numbers of items, and a digest of all items in order with labels, domains and class names, and of the classes."""
    lists = {part: getattr(dataset, part) for part in ("train_x", "val", "test")}
    rows = {
        part: [[os.path.relpath(d.impath, root), d.label, d.domain, d.classname] for d in items or []]
        for part, items in lists.items()
    }
    content = json.dumps([rows, dataset.num_classes, dataset.classnames, sorted(dataset.lab2cname.items())])
    return [*map(len, rows.values()), dataset.num_classes, hashlib.sha256(content.encode()).hexdigest()[:16]]


def main(target):
    """Writes what upstream's classes give. Their listings are sorted here, as ours always are."""
    from dassl.config import get_cfg_default
    from dassl.data.datasets import build_dataset
    from dassl.utils import set_random_seed

    for module in MODULES:
        importlib.import_module(f"datasets.{module}")

    def build(root, name, seed, shots, half):
        cfg = get_cfg_default()
        cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS, cfg.SEED = str(root), name, shots, seed
        cfg.DATASET.SUBSAMPLE_CLASSES = half
        set_random_seed(seed)
        for pickled in [*root.glob("*/split_fewshot"), *root.glob("*/preprocessed.pkl")]:
            shutil.rmtree(pickled) if pickled.is_dir() else pickled.unlink()
        return build_dataset(cfg)

    listdir = os.listdir
    os.listdir = lambda path=".": sorted(listdir(path))
    with tempfile.TemporaryDirectory() as folder:
        root = make_trees(Path(folder))
        expected = {key: describe(build(root, *rest), root) for key, *rest in settings()}
        for name in NEW_SPLITS:
            for split in root.glob(f"*/split_zhou_{name}.json"):
                split.unlink()
            expected[f"{name} new split"] = describe(build(root, name, 1, -1, "all"), root)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in expected.items())
    Path(target).write_text("{\n" + lines + "\n}\n")
    print(
        sys.modules["datasets"].__file__, len(expected), "settings", sum(sum(v[:3]) for v in expected.values()), "items"
    )


if __name__ == "__main__":
    main(sys.argv[1])
