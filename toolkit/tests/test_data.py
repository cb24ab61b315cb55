"""Few-shot draws, loaders, items, damaged images."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.engine import build_trainer
from dassl.utils import ImageError, read_image, set_random_seed

DATA = Path(__file__).parent / "data"


def items(seed, count):
    rng = random.Random(seed)
    return [SimpleNamespace(number=i, label=rng.randrange(5), domain=i % 3) for i in range(count)]


@pytest.mark.parametrize("row", json.loads((DATA / "fewshot.json").read_text()), ids=lambda row: f"seed{row['seed']}")
def test_fewshot_draw_is_that_of_published_splits(row):
    set_random_seed(row["seed"])
    train, val = DatasetBase().generate_fewshot_dataset(
        items(7, 60), items(8, 30), num_shots=row["shots"], repeat=row["repeat"]
    )
    assert [item.number for item in train] == row["train"]
    assert [item.number for item in val] == row["val"]


def test_fewshot_without_a_number_changes_nothing():
    source = items(1, 5)
    assert DatasetBase().generate_fewshot_dataset(source) is source
    assert DatasetBase().generate_fewshot_dataset(source, source) == (source, source)


def collect(cfg, epochs=(0, 1)):
    loader = DataManager(cfg).train_loader_x
    batches = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        batches += list(loader)
    return batches


def test_workers_do_not_change_items(make_cfg):
    options = ("INPUT.TRANSFORMS", ("random_resized_crop", "colorjitter", "randomgrayscale"))
    alone, workers = (collect(make_cfg("DATALOADER.NUM_WORKERS", n, *options)) for n in (0, 2))
    assert len(alone) == len(workers) == 4
    for a, b in zip(alone, workers, strict=True):
        assert torch.equal(a["img"], b["img"]) and a["impath"] == b["impath"]
    assert alone[0]["impath"] != alone[2]["impath"]


def test_an_image_is_augmented_anew_in_every_epoch(make_cfg):
    cfg = make_cfg("DATALOADER.TRAIN_X.SAMPLER", "SequentialSampler")
    first, _, second, _ = collect(cfg)
    assert first["impath"] == second["impath"] and not torch.equal(first["img"], second["img"])


def test_loading_leaves_the_global_generators_alone(make_cfg):
    loader = DataManager(make_cfg()).train_loader_x
    set_random_seed(5)
    expected = random.random(), torch.rand(1).item()
    set_random_seed(5)
    list(loader)
    assert (random.random(), torch.rand(1).item()) == expected


def test_training_and_testing_do_not_depend_on_workers(make_cfg):
    runs = {}
    for workers in (0, 2):
        out = f"{make_cfg().OUTPUT_DIR}-{workers}"
        trainer = build_trainer(make_cfg("DATALOADER.NUM_WORKERS", workers, "OUTPUT_DIR", out, "OPTIM.MAX_EPOCH", 2))
        trainer.train()
        runs[workers] = torch.cat([p.flatten() for p in trainer.model.parameters()]), trainer.test_results
    assert torch.equal(runs[0][0], runs[2][0]) and runs[0][1] == runs[2][1]


def test_random_test_views_are_those_of_the_image(make_cfg):
    def jitter(image):
        return torch.rand(2)

    def views(*options):
        return list(DataManager(make_cfg(*options), custom_tfm_test=jitter).test_loader)

    once, again = views("DATALOADER.TEST.BATCH_SIZE", 1), views("DATALOADER.NUM_WORKERS", 2)
    assert torch.equal(torch.cat([b["img"] for b in once]), torch.cat([b["img"] for b in again]))
    assert len({tuple(b["img"][0].tolist()) for b in once}) == len(once)


def test_items(make_cfg):
    cfg = make_cfg("DATALOADER.RETURN_IMG0", True, "DATALOADER.K_TRANSFORMS", 2)
    source = build_dataset(cfg).test
    to_tensor = DatasetWrapper(cfg, source).to_tensor
    item = DatasetWrapper(cfg, source, transform=(to_tensor, to_tensor))[1]
    assert set(item) == {"img", "img2", "img0", "label", "domain", "impath", "index"}
    assert item["img0"].shape == (3, 8, 8) and item["index"] == 1 and item["impath"] == source[1].impath
    assert len(DatasetWrapper(cfg, source, transform=to_tensor, is_train=True)[0]["img"]) == 2
    assert isinstance(DatasetWrapper(cfg, source)[0]["img"], Image.Image)
    with pytest.raises(ValueError, match="K_TRANSFORMS 2 needs a transform"):
        DatasetWrapper(cfg, source, is_train=True)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"not an image", None])
def test_damaged_image_is_named(make_cfg, tmp_path, workers, content):
    cfg = make_cfg("DATALOADER.NUM_WORKERS", workers)
    path = tmp_path / "bad.png"
    path.write_bytes(b"x")
    source = [*build_dataset(cfg).test[:2], Datum(str(path))]
    path.unlink() if content is None else path.write_bytes(content)
    loader = build_data_loader(cfg, data_source=source, batch_size=3, tfm=lambda image: 0, is_train=False)
    with pytest.raises(ImageError) as caught:
        list(loader)
    message = str(caught.value)
    assert str(path) in message and message.endswith("(item 2 of 3)") and "\n" not in message


def test_datum_and_read_image(tmp_path):
    with pytest.raises(ValueError, match="No image file"):
        Datum(str(tmp_path / "no.png"))
    with pytest.raises(ValueError, match="must be a string"):
        Datum(tmp_path)
    with pytest.raises(ImageError, match="No image file"):
        read_image(str(tmp_path))
    Image.new("L", (4, 3)).save(tmp_path / "grey.png")
    assert read_image(str(tmp_path / "grey.png")).mode == "RGB"


def test_batches_and_empty_splits(make_cfg):
    cfg = make_cfg("DATALOADER.TRAIN_X.BATCH_SIZE", 100)
    manager = DataManager(cfg)
    assert [len(batch["label"]) for batch in manager.train_loader_x] == [12]
    assert (manager.num_classes, manager.lab2cname[2], manager.train_loader_u) == (3, "owl", None)
    with pytest.raises(ValueError, match='"val" split of dataset .Squares. has no images'):
        build_data_loader(cfg, data_source=[], split="val")


def test_classes_of_a_dataset(make_cfg):
    test = build_dataset(make_cfg()).test
    only_test = DatasetBase(test=test)
    assert only_test.classnames == ["cat", "dog", "owl"] and only_test.num_classes == 3
    with pytest.raises(ValueError, match='Label 0 has two class names, "cat" and "lion"'):
        DatasetBase(train_x=[*test, Datum(test[0].impath, 0, classname="lion")])


def test_samplers():
    for name in ("RandomSampler", "SequentialSampler"):
        orders = []
        for seed in (7, 7, 8):
            sampler = build_sampler(name, range(30))
            getattr(sampler, "reseed", int)(seed)
            orders.append(list(sampler))
        assert sorted(orders[0]) == sorted(orders[2]) == list(range(30)) and orders[0] == orders[1]
        assert (orders[0] == orders[2]) is (name == "SequentialSampler")


@pytest.mark.parametrize("key", ["DATALOADER.TRAIN_X.SAMPLER", "DATALOADER.TEST.SAMPLER"])
def test_a_sampler_that_is_not_here_is_named_with_its_key(make_cfg, key):
    message = rf"{key} must be one of \('RandomSampler', 'SequentialSampler'\), but got 'RandomDomainSampler'"
    with pytest.raises(ValueError, match=message):
        DataManager(make_cfg(key, "RandomDomainSampler"))
