"""Split files, few-shot draws, class names and the messages of CoOp's datasets; parity has a file of its own."""

import json
import os
import shutil
from pathlib import Path

import pytest
import zoo_trees
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from zoo import build

import datasets
import train
from datasets.catalog import CATALOG
from datasets.fewshot import draw_shots
from datasets.items import Item, same_names
from tlla.errors import InputError


@pytest.fixture
def root(tmp_path):
    """OxfordPets, EuroSAT and FGVCAircraft."""
    zoo_trees.make_pets(tmp_path)
    zoo_trees.make_folders(tmp_path, "eurosat", "2750", ["Forest", "River"], "EuroSAT")
    zoo_trees.make_aircraft(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """ImageNet and its four variants."""
    root = tmp_path_factory.mktemp("imagenet")
    zoo_trees.make_imagenet(root)
    return root


def rows(dataset, part="train_x"):
    return [(d.impath, d.label, d.classname) for d in getattr(dataset, part)]


def edit_split(root, change):
    """Changes the split file of OxfordPets."""
    path = root / "oxford_pets/split_zhou_OxfordPets.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_registry_the_catalog_and_the_configs_name_the_same_datasets():
    assert set(zoo_trees.NAMES + zoo_trees.VARIANTS) <= set(CATALOG)
    assert set(CATALOG) | {"ImageFolder"} <= set(DATASET_REGISTRY.registered_names())
    files = sorted((Path(train.__file__).parent / "configs/datasets").glob("*.yaml"))
    named = {train.build_cfg(train.parse_args(["--trainer", "SAPT", "--dataset-config-file", str(f)])).DATASET.NAME
             for f in files}  # fmt: skip
    assert set(CATALOG) | {"ImageFolder"} <= named


def test_defaults_are_coops():
    cfg = get_cfg_default()
    datasets.add_configs(cfg)
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "all" and cfg.DATASET.CLASSNAMES == "coop"
    assert cfg.DATASET.ALLOW_NEW_SPLIT is False and cfg.DATASET.SPLIT_FILE == cfg.DATASET.TEMPLATE == ""


def test_templates_are_coops_and_can_be_replaced(root):
    assert build("OxfordPets", root).template == "a photo of a {}, a type of pet."
    assert build("FGVCAircraft", root).template == "a photo of a {}, a type of aircraft."
    assert build("OxfordPets", root, "TEMPLATE", "{}!").template == "{}!"
    assert build("OxfordPets", root).template == "a photo of a {}, a type of pet."
    for wrong in ("a pet", "{} and {}", "a {pet}", "{"):
        with pytest.raises(InputError, match="DATASET.TEMPLATE must hold {}"):
            build("OxfordPets", root, "TEMPLATE", wrong)


def test_the_draw_is_stored_with_relative_paths_and_survives_a_moved_root(root, tmp_path_factory, capsys):
    first = build("OxfordPets", root, shots=2)
    stored = json.loads((root / "oxford_pets/split_fewshot/shot_2-seed_1.json").read_text())
    assert stored["source_sha256"] == first.split_file_sha256 and len(stored["train"]) == 10
    assert all(path.startswith("oxford_pets/images/") and (root / path).is_file() for path, _ in stored["train"])
    moved = shutil.move(str(root), tmp_path_factory.mktemp("new") / "data")
    capsys.readouterr()
    again = build("OxfordPets", moved, shots=2)
    assert "Using the 2-shot draw" in capsys.readouterr().out
    relative = [os.path.relpath(path, root) for path, *_ in rows(first)]
    assert [os.path.relpath(path, moved) for path, *_ in rows(again)] == relative


def test_a_draw_of_another_split_is_noticed(root, capsys):
    build("OxfordPets", root, shots=2)
    edit_split(root, lambda split: split["train"].pop())
    changed = build("OxfordPets", root, shots=2)
    assert "was drawn from another split or listing: drawing again" in capsys.readouterr().out
    shutil.rmtree(root / "oxford_pets/split_fewshot")
    assert rows(changed) == rows(build("OxfordPets", root, shots=2))


@pytest.mark.parametrize("content", ("", "{", "[]", '{"parts": 3}', None))
def test_a_damaged_draw_is_drawn_again(root, content, capsys):
    good = build("OxfordPets", root, shots=1)
    file = root / "oxford_pets/split_fewshot/shot_1-seed_1.json"
    text = file.read_text()
    file.write_text(text[:-30] if content is None else content)
    assert rows(build("OxfordPets", root, shots=1)) == rows(good)
    assert "drawing again" in capsys.readouterr().out and file.read_text() == text


def test_pickles_are_neither_read_nor_written(root):
    folder = root / "oxford_pets/split_fewshot"
    folder.mkdir()
    (folder / "shot_1-seed_1.pkl").write_bytes(b"not even a pickle")
    build("OxfordPets", root, shots=1)
    assert sorted(p.name for p in folder.iterdir()) == ["shot_1-seed_1.json", "shot_1-seed_1.pkl"]


def test_a_negative_seed_is_random_and_leaves_no_file(root):
    draws = {tuple(rows(build("OxfordPets", root, seed=-1, shots=2))) for _ in range(6)}
    assert len(draws) > 1 and not (root / "oxford_pets/split_fewshot").exists()


def test_a_seeded_draw_depends_on_the_seed_alone():
    items = [Item(f"{i}.jpg", i % 3, str(i % 3)) for i in range(60)]
    zoo_trees.random.seed(5)
    first = draw_shots({"train": items, "val": items}, 8, 7)
    assert draw_shots({"train": items, "val": items}, 8, 7) == first
    assert [len(first[part]) for part in first] == [24, 12]
    few = draw_shots({"train": items[:9]}, 8, 7)["train"]
    assert sorted(few) == sorted(items[:9])  # a class that has fewer gives all


def test_a_root_that_cannot_be_written_to_is_used_and_named_once(root, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    expected = build("OxfordPets", root, shots=2)
    shutil.rmtree(root / "oxford_pets/split_fewshot")
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)  # whoever runs as root may write anywhere
    capsys.readouterr()
    for _ in range(2):
        assert rows(build("OxfordPets", root, shots=2)) == rows(expected)
    assert capsys.readouterr().out.count("cannot be written to (Read-only file system): the draw is not stored") == 1


def test_a_full_disk_leaves_no_half_written_file(root, monkeypatch, capsys):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    build("OxfordPets", root, shots=2)
    assert "No space left on device" in capsys.readouterr().out
    assert list((root / "oxford_pets/split_fewshot").iterdir()) == []


def test_the_file_systems_order_changes_nothing(imagenet, monkeypatch):
    expected = build("ImageNet", imagenet, shots=4)
    shutil.rmtree(imagenet / "imagenet/split_fewshot")
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return self.entries

        def __exit__(self, *error):
            pass

    monkeypatch.setattr("os.scandir", Backwards)
    again = build("ImageNet", imagenet, shots=4)
    monkeypatch.undo()
    shutil.rmtree(imagenet / "imagenet/split_fewshot")
    assert [rows(again, part) for part in ("train_x", "test")] == [rows(expected, part) for part in ("train_x", "test")]


def test_a_stored_draw_of_imagenet_needs_no_listing_and_notices_a_new_image(imagenet, monkeypatch, capsys):
    first = build("ImageNet", imagenet, shots=2)
    listed = []
    original = datasets.splits.list_files
    monkeypatch.setattr("datasets.splits.list_files", lambda path, *a: listed.append(path) or original(path, *a))
    assert rows(build("ImageNet", imagenet, shots=2)) == rows(first)
    assert listed and not any("/train/" in path for path in listed)
    folder = imagenet / "imagenet/images/train/n01440764"
    (folder / "new.JPEG").touch()
    try:
        build("ImageNet", imagenet, shots=2)
    finally:
        (folder / "new.JPEG").unlink()
    assert "drawing again" in capsys.readouterr().out


def test_a_missing_split_says_which_file_where_and_how_to_get_it(root):
    (root / "oxford_pets/split_zhou_OxfordPets.json").unlink()
    with pytest.raises(InputError) as error:
        build("OxfordPets", root)
    for part in ("split_zhou_OxfordPets.json", str(root / "oxford_pets"), "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
                 "python -m datasets download OxfordPets --split-only", "ALLOW_NEW_SPLIT"):  # fmt: skip
        assert part in str(error.value)
    assert not (root / "oxford_pets/split_new_OxfordPets.json").exists()


def test_a_new_split_never_hides_the_published_one(root):
    (root / "oxford_pets/split_new_OxfordPets.json").write_text("not used")
    plain = build("OxfordPets", root)
    assert rows(build("OxfordPets", root, "ALLOW_NEW_SPLIT", True)) == rows(plain)


def test_another_split_file_can_be_named(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("splits") / "mine.json"
    shutil.copy(root / "oxford_pets/split_zhou_OxfordPets.json", other)
    expected = build("OxfordPets", root)
    edit_split(root, lambda split: split["train"].clear())
    assert rows(build("OxfordPets", root, "SPLIT_FILE", other)) == rows(expected)
    with pytest.raises(InputError, match="SPLIT_FILE 'no.json' is neither"):
        build("OxfordPets", root, "SPLIT_FILE", "no.json")
    with pytest.raises(InputError, match="FGVCAircraft has no split file"):
        build("FGVCAircraft", root, "SPLIT_FILE", other)


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda s: s.pop("test"), "is not a split file .KeyError: 'test'"),
        (lambda s: s["val"].append(["x.jpg", 1]), r"val\[\d+\] is \['x.jpg', 1\]; \[path, label"),
        (lambda s: s["val"].append(["x.jpg", -1, "cat"]), "label .0 or more"),
        (lambda s: s["val"].append([3, 1, "cat"]), r"is \[3, 1, 'cat'\]"),
        (lambda s: s["test"][0].__setitem__(2, "a name of its own"), "two class names.*exactly one"),
        (lambda s: s["train"].clear(), "oxford_pets has no train images"),
        (lambda s: s.update(train=[row for row in s["train"] if row[1] != 2]), "but labels up to 4: 2 are missing, so"),
        (lambda s: s["val"].append(["Bengal_0.jpg", 5, "lynx"]), "classes without train images: lynx"),
        (lambda s: s["test"].append(["gone_ä.jpg", 0, "abyssinian"]), "lacks 1 of .* images: gone_ä.jpg; .*check Oxf"),
    ),
)
def test_a_bad_split_is_one_sentence(root, change, message):
    edit_split(root, change)
    with pytest.raises(InputError, match=message):
        build("OxfordPets", root)


def test_a_split_that_is_no_json_is_one_sentence(root):
    (root / "oxford_pets/split_zhou_OxfordPets.json").write_text("<html>Quota exceeded</html>")
    with pytest.raises(InputError, match="is not a split file .JSONDecodeError.*download it again"):
        build("OxfordPets", root)


@pytest.mark.parametrize(
    ("folder", "message"),
    (
        ("", "DATASET.ROOT is empty; give --root, the folder that holds oxford_pets/"),
        ("file", "DATASET.ROOT .*file is a file; a folder"),
        ("none", "DATASET.ROOT .*none does not exist"),
        ("empty", "there is no folder .*oxford_pets; python -m datasets explain OxfordPets"),
    ),
)
def test_a_wrong_root_is_one_sentence(tmp_path, folder, message):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        build("OxfordPets", tmp_path / folder if folder else "")


def test_wrong_options_are_refused(root, imagenet):
    with pytest.raises(InputError, match="SUBSAMPLE_CLASSES must be one of .* got 'bse'"):
        build("OxfordPets", root, "SUBSAMPLE_CLASSES", "bse")
    with pytest.raises(InputError, match="CLASSNAMES must be one of .* got 'clip'"):
        build("ImageNetA", imagenet, "CLASSNAMES", "clip")
    with pytest.raises(InputError, match="ImageNetR has no base and new classes"):
        build("ImageNetR", imagenet, "SUBSAMPLE_CLASSES", "base")


def test_an_empty_class_folder_is_refused_where_folders_give_the_labels(root, imagenet):
    (root / "eurosat/split_zhou_EuroSAT.json").unlink()
    (root / "eurosat/2750/AnnualCrop").mkdir()
    with pytest.raises(InputError, match="2750/AnnualCrop is empty; python -m datasets explain EuroSAT"):
        build("EuroSAT", root, "ALLOW_NEW_SPLIT", True)
    (image,) = (imagenet / "imagenet-sketch/images/n01443537").iterdir()
    image.rename(imagenet / "aside")
    with pytest.raises(InputError, match="images/n01443537 is empty"):
        build("ImageNetSketch", imagenet)
    (imagenet / "aside").rename(image)


def test_the_aircraft_lists_are_checked(root):
    zoo_trees.text(root / "fgvc_aircraft/images_variant_val.txt", ["0000000 Zeppelin"])
    with pytest.raises(InputError, match="images_variant_val.txt names 'Zeppelin', which variants.txt lacks"):
        build("FGVCAircraft", root)
    (root / "fgvc_aircraft/variants.txt").unlink()
    with pytest.raises(InputError, match="variants.txt cannot be read"):
        build("FGVCAircraft", root)


def test_the_split_in_use_has_a_sha256(root, imagenet):
    sums = {build(name, root).split_file_sha256 for name in ("OxfordPets", "EuroSAT", "FGVCAircraft")}
    assert all(len(s) == 64 for s in sums) and len(sums) == 3
    assert build("ImageNetA", imagenet).split_file_sha256 is None


def test_imagenets_own_names_are_twice_in_two_cases(imagenet):
    names = dict(enumerate(build("ImageNetSketch", imagenet).classnames))
    assert len(names) == 1000
    assert same_names(names) == ["'missile' and 'missile'", "'sunglasses' and 'sunglasses'"]


def test_a_file_of_class_names_with_two_names_of_a_folder_is_refused(imagenet):
    path = imagenet / "imagenet-sketch/classnames.txt"
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}n01443537 carp\n", encoding="utf-8")
    with pytest.raises(InputError, match="names 'n01443537' twice, 'goldfish' and 'carp'"):
        build("ImageNetSketch", imagenet)
    path.write_text(before, encoding="utf-8")


def test_variants_label_their_own_200_classes(imagenet):
    for name, file in (("ImageNetA", "imagenet_a.txt"), ("ImageNetR", "imagenet_r.txt")):
        dataset = build(name, imagenet)
        named = dict(zoo_trees.synsets())
        assert dataset.classnames == [named[synset] for synset, _ in zoo_trees.synsets(file)]
        assert dataset.num_classes == 200 and {d.label for d in dataset.test} == set(range(200))
        assert rows(dataset) == rows(dataset, "test") and not dataset.val


def test_imagenetv2_is_labelled_by_number_and_imagenets_val_is_its_test(imagenet):
    dataset = build("ImageNetV2", imagenet)
    assert all(d.label == int(d.impath.split("/")[-2]) for d in dataset.test)
    dataset = build("ImageNet", imagenet, shots=1)
    assert rows(dataset, "val") == rows(dataset, "test") and len(dataset.train_x) == 1000


def test_tpts_names_need_no_file(imagenet):
    for name, folder in (("ImageNetSketch", "imagenet-sketch"), ("ImageNetV2", "imagenetv2")):
        file = imagenet / folder / "classnames.txt"
        lines = file.read_text()
        file.write_text(lines.replace(" tench\n", " a fish\n"))
        assert build(name, imagenet).classnames[0] == "a fish"
        assert build(name, imagenet, "CLASSNAMES", "tpt").classnames[0] == "tench"
        file.unlink()
        assert build(name, imagenet).classnames[0] == "tench"  # ImageNet's own copy serves
        file.write_text(lines)


def test_missing_class_names_say_where_to_get_them(tmp_path):
    zoo_trees.touch(tmp_path / "imagenet-rendition/imagenet-r/n01443537/1.jpg")
    with pytest.raises(InputError, match="classnames.txt was expected in .*1-61f_ol79.*CLASSNAMES tpt"):
        build("ImageNetR", tmp_path)


def test_a_wrong_level_of_folders_is_refused(tmp_path, capsys):
    zoo_trees.touch(tmp_path / "imagenet-rendition/imagenet-r/imagenet-r/n01443537/1.jpg")
    with pytest.raises(InputError, match="must hold 200 class folders .*not in the class names: imagenet-r; is one"):
        build("ImageNetR", tmp_path, "CLASSNAMES", "tpt")
    os.rename(tmp_path / "imagenet-rendition/imagenet-r/imagenet-r", tmp_path / "imagenet-rendition/moved")
    with pytest.raises(InputError, match="but there are none"):
        build("ImageNetR", tmp_path, "CLASSNAMES", "tpt")
    zoo_trees.touch(tmp_path / "imagenet-rendition/imagenet-r/n01443537/1.jpg")
    assert build("ImageNetR", tmp_path, "CLASSNAMES", "tpt").classnames == ["goldfish"]
    assert "has 1 class folders, not 200" in capsys.readouterr().out


def test_imagenets_val_must_have_trains_folders(imagenet):
    extra = imagenet / "imagenet/images/val/n01440764"
    extra.rename(imagenet / "aside")
    with pytest.raises(InputError, match="must hold the same class folders, but differ in 1: n01440764"):
        build("ImageNet", imagenet)
    (imagenet / "aside").rename(extra)
    folder = imagenet / "imagenetv2/imagenetv2-matched-frequency-format-val/7"
    folder.rename(imagenet / "aside")
    with pytest.raises(InputError, match="must hold the folders 0 to 999, but differs in 1: 7"):
        build("ImageNetV2", imagenet)
    (imagenet / "aside").rename(folder)
