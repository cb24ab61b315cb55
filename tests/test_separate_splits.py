"""No trainer that learns learns from test images, or chooses its epoch by them."""

import itertools
import os
from types import SimpleNamespace

import pytest
import zoo_trees
from dassl.engine import TRAINER_REGISTRY
from hostile import accepted, refused
from kinds import LEARN
from PIL import Image
from zoo import build

import train
from tlla.errors import InputError
from trainers.harness.split_guard import separate_splits

FOLDER = ("--dataset-config-file", "configs/datasets/image_folder.yaml")
FAST = ("OPTIM.MAX_EPOCH", "1", "OPTIM.NAME", "adamw", "TEST.SKIP_BAD_IMAGES", "True")


FROM_IMAGES = [name for name in LEARN if TRAINER_REGISTRY.get(name).learns_from_images]


@pytest.fixture
def images(tmp_path):
    """Three images of two classes in each part."""
    for part in ("train", "val", "test"):
        for i, name in enumerate(("ape", "ape", "bear")):
            (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 50 + i).convert("RGB").save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def split(root, **parts):
    """Writes split.csv: the images of the folders, with those of one part put into another as well."""
    rows = [(path, part) for part in ("train", "val", "test") for path in sorted(root.glob(f"{part}/*/*"))]
    rows += [(path, also) for part, also in parts.items() for path in sorted(root.glob(f"{part}/*/*"))[:1]]
    lines = [f"{path.relative_to(root)},{path.parent.name},{part}" for path, part in rows]
    (root / "split.csv").write_text("\n".join(["path,class,split", *lines]))


def argv(place, trainer, root, *more):
    return place.argv(trainer, f"{root.name}_{trainer}", *FOLDER, "--root", str(root), *FAST, *more)


def only_test(root):
    for part in ("train", "val"):
        (root / part).rename(root / f"no_{part}")


def listed(root):
    split(root, test="train")


def linked(root):
    os.remove(root / "train/ape/0.png")
    (root / "train/ape/0.png").symlink_to(root / "test/ape/1.png")


OVERLAPS = {"only test": only_test, "in two parts": listed, "a link": linked}


def test_the_trainers_that_learn_from_images_are_known():
    assert {"CoOp", "SAPT", "CoCoOp", "TLLA", "TipAdapter", "TipAdapterF"} <= set(FROM_IMAGES)
    assert set(LEARN) - set(FROM_IMAGES) == {"FPP"}


# All share the code: each trainer, each overlap.
@pytest.mark.parametrize(("trainer", "overlap"), list(zip(FROM_IMAGES, itertools.cycle(OVERLAPS))))
def test_training_on_test_images_is_refused(place, images, capfd, trainer, overlap):
    OVERLAPS[overlap](images)
    pairs = ("DATASET.SPLIT_FILE", "split.csv") if overlap == "in two parts" else ()
    count = "3 of 3" if overlap == "only test" else "1 of"
    says = ("ImageFolder has its test images as training images", count, "/test/ape/", "--eval-only")
    if overlap == "a link":
        says = (*says[:2], "/train/ape/0.png", *says[3:])
    refused(capfd, "train", *argv(place, trainer, images, *pairs), says=says)


def test_testing_without_training_images_is_not_refused(place, images, capfd):
    only_test(images)
    flags = ("--eval-only", "OPTIM.MAX_EPOCH", "1")
    accepted(capfd, "train", *place.argv("TLLA", "eval", *FOLDER, "--root", str(images), *flags))


def test_a_training_without_images_needs_no_others_than_those_of_the_test(place, images, capfd):
    only_test(images)
    accepted(capfd, "train", *argv(place, "FPP", images))
    (images / "no_train").rename(images / "train")
    accepted(capfd, "train", *argv(place, "FPP", images))  # other training images are no other training


@pytest.mark.parametrize("trainer", LEARN)
def test_no_epoch_is_chosen_by_test_images(place, images, capfd, trainer):
    split(images, test="val")
    best = ("DATASET.SPLIT_FILE", "split.csv", "TEST.FINAL_MODEL", "best_val")
    if trainer.startswith("TipAdapter"):  # upstream's configs ask for it also on ImageNet
        out = accepted(capfd, "train", *argv(place, trainer, images, *best)).out
        assert "1 of the 4 val images of ImageFolder are test images: BETA" in out and "the last epoch is tested" in out
    else:
        says = ("best_val chooses the epoch by val images, but 1 of the 4 val images", "last_step")
        refused(capfd, "train", *argv(place, trainer, images, *best), says=says)
        split(images)
        (images / "split.csv").write_text((images / "split.csv").read_text().replace(",val", ",train"))
        refused(capfd, "train", *argv(place, trainer, images, *best), says=("but ImageFolder has no val images",))


def test_val_images_among_the_others_are_said(place, images, capfd):
    split(images, test="val", train="val")
    out = accepted(capfd, "train", *argv(place, "CoOp", images, "DATASET.SPLIT_FILE", "split.csv")).out
    assert "Note: 1 of the 5 val images of ImageFolder are test images, so that nothing can be chosen by them" in out
    assert "Note: 1 of the 5 val images of ImageFolder are training images" in out


def stub(name: str, dataset, final: str = "last_step"):
    """A trainer without a model: what `separate_splits` looks at."""
    cfg = train.build_cfg(train.parse_args(["--trainer", "SAPT", "DATASET.NAME", name, "TEST.FINAL_MODEL", final]))
    trainer = object.__new__(TRAINER_REGISTRY.get("SAPT"))
    trainer.cfg, trainer.dm, trainer.record = cfg, SimpleNamespace(dataset=dataset), {}
    return trainer


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    zoo_trees.make_imagenet(root)
    return root


@pytest.mark.parametrize("name", [name for name in zoo_trees.VARIANTS if name != "ImageNet"])
def test_test_sets_of_imagenet_are_for_testing_only(imagenet, name):
    with pytest.raises(InputError, match=f"{name} has its test images as training images"):
        separate_splits(stub(name, build(name, imagenet)))


def test_imagenets_val_chooses_nothing(imagenet, capsys):
    dataset = build("ImageNet", imagenet, shots=1)
    separate_splits(stub("ImageNet", dataset))
    assert "val images of ImageNet are test images, so that nothing can be chosen by them" in capsys.readouterr().out
    with pytest.raises(
        InputError, match="TEST.FINAL_MODEL best_val chooses the epoch by val images, but .* of ImageNet"
    ):
        separate_splits(stub("ImageNet", dataset, "best_val"))


def test_one_look_at_each_file_serves_the_guard_and_the_identity(place, monkeypatch):
    seen = []
    trainer = train.build_trainer(train.build_cfg(train.parse_args(place.argv("SAPT", "looks"))))
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: seen.append(str(path)) or stat(path, **how))
    separate_splits(trainer)
    assert trainer.identity["size and time of train_x's files"]
    images = [path for path in seen if path.endswith(".png")]
    assert len(images) == len(set(images)) == 24 + 12 + 15
