"""`python -m datasets`: what it prints and its exit codes; the generated page."""

import json
import runpy
import sys
from dataclasses import replace

import pytest
import zoo_trees
from benchmark import REPO
from PIL import Image
from zoo import build

import datasets.__main__ as cli
from datasets.care.document import document
from datasets.catalog import CATALOG
from tlla.errors import InputError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """OxfordPets whose numbers are as expected."""
    zoo_trees.make_pets(tmp_path)
    file = tmp_path / "oxford_pets/split_zhou_OxfordPets.json"
    parts = json.loads(file.read_text())
    for part, others in (("val", "train"), ("test", "train"), ("val", "test")):  # the tree's smallest class is in all
        parts[part] = [row for row in parts[part] if row not in parts[others]]
    file.write_text(json.dumps(parts))
    counts = tuple(map(len, parts.values()))
    monkeypatch.setitem(CATALOG, "OxfordPets", replace(CATALOG["OxfordPets"], classes=5, counts=counts))
    return tmp_path


def run(capsys, *argv):
    """Exit code and what was printed."""
    code = cli.main([str(a) for a in argv])
    out = capsys.readouterr()
    return code, out.out + out.err


def test_the_page_is_generated_from_the_table(capsys):
    assert (REPO / "DATASETS.md").read_text(encoding="utf-8") == document()
    assert run(capsys, "list", "--markdown") == (0, document())


def test_the_list_says_what_is_there(root, capsys):
    code, out = run(capsys, "list", "--root", root)
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and set(CATALOG) < set(lines)
    assert lines["OxfordPets"].endswith("yes") and lines["EuroSAT"].endswith("no")


def test_every_dataset_is_explained(capsys):
    for name, entry in CATALOG.items():
        code, out = run(capsys, "explain", name.lower())
        assert code == 0
        for part in (f"{entry.folder}/\n", entry.licence, entry.page, entry.by_hand, entry.split_id):
            assert part in out, name
        assert f"{entry.counts[2]:,}" in out


def test_a_whole_dataset_has_no_faults_and_is_left_as_it_was(root, capsys):
    before = sorted(root.rglob("*"))
    code, out = run(capsys, "check", "OxfordPets", "--root", root)
    assert code == 0 and out.endswith("OxfordPets: no faults\n")
    assert "train: all 50 images are there" in out and "sha256 of the split" in out
    assert sorted(root.rglob("*")) == before


def test_missing_extra_and_empty_are_named(root, capsys):
    images = root / "oxford_pets/images"
    gone = sorted(images.glob("Bengal_1*.jpg"))[:7]
    for path in gone:
        path.unlink()
    (images / "größe.png").touch()
    (images / "empty").mkdir()
    code, out = run(capsys, "check", "OxfordPets", "--root", root)
    assert code == 1 and out.rstrip().endswith("faults")
    assert "images are missing: Bengal_1" in out
    assert "1 images that are not expected: größe.png" in out
    assert f"FAULT  {images} has 1 empty folders: empty" in out


def test_wrong_numbers_are_a_fault(root, capsys):
    zoo_trees.make_pets(root / "other")
    counts = (2944, 736, 3669)
    CATALOG["OxfordPets"] = replace(CATALOG["OxfordPets"], classes=37, counts=counts)  # undone by the fixture
    code, out = run(capsys, "check", "OxfordPets", "--root", root)
    assert code == 1
    assert "5 classes; train, val, test: 50, 16, 33; 37 classes and 2,944, 736, 3,669 were expected" in out


def test_deep_names_unreadable_images(root, capsys):
    for path in (root / "oxford_pets/images").iterdir():
        Image.effect_noise((32, 32), 90).save(path)
    assert run(capsys, "check", "OxfordPets", "--root", root, "--deep")[0] == 0
    path = root / "oxford_pets/images/Bengal_2.jpg"
    path.write_bytes(path.read_bytes()[:500])
    (root / "oxford_pets/images/Bengal_3.jpg").write_text("<html>")
    code, out = run(capsys, "check", "OxfordPets", "--root", root, "--deep")
    assert code == 1
    assert "2 of 99 images cannot be read" in out and "Bengal_3.jpg (is not an image that Pillow can read" in out


def test_a_missing_folder_or_split_is_a_fault(tmp_path, capsys):
    code, out = run(capsys, "check", "EuroSAT", "--root", tmp_path)
    assert code == 1 and "there is no folder" in out
    (tmp_path / "eurosat").mkdir()
    code, out = run(capsys, "check", "EuroSAT", "--root", tmp_path)
    assert code == 1 and "split_zhou_EuroSAT.json was expected" in out


def test_imagenets_folders_are_compared_with_the_known_synsets(tmp_path, capsys):
    folder = tmp_path / "imagenet-rendition/imagenet-r"
    synsets = [synset for synset, _ in zoo_trees.synsets("imagenet_r.txt")]
    for synset in synsets[1:]:
        zoo_trees.touch(folder / synset / "a.jpg")
    argv = ("check", "ImageNetR", "--root", tmp_path, "--opts", "DATASET.CLASSNAMES", "tpt")
    code, out = run(capsys, *argv)
    assert code == 1
    assert "has 199 of 200 class folders" in out and f"lacks 1 class folders: {synsets[0]}" in out
    assert "199 classes; train, val, test: -, -, 199; 200 classes and -, -, 30,000 were expected" in out
    zoo_trees.touch(folder / synsets[0] / "a.jpg")
    zoo_trees.touch(folder / "n01440764/a.jpg")  # of ImageNet, but not of ImageNet-R
    code, out = run(capsys, *argv)
    assert code == 1 and "has 1 class folders that are not expected: n01440764" in out


def test_imagenet_c_is_the_folder_of_a_corruption_in_a_severity(tmp_path, capsys):
    synsets = [synset for synset, _ in zoo_trees.synsets()][:3]
    for synset in synsets:
        for severity in range(1, 4):
            zoo_trees.touch(tmp_path / f"imagenet-c/fog/{severity}/{synset}/ILSVRC2012_val_{severity}.JPEG")
    pairs = ("CORRUPTION", "fog", "SEVERITY", "3", "CLASSNAMES", "tpt")
    dataset = build("ImageNetC", tmp_path, *pairs)
    folder = tmp_path / "imagenet-c/fog/3"
    assert [item.impath for item in dataset.test] == [f"{folder}/{s}/ILSVRC2012_val_3.JPEG" for s in synsets]
    assert dataset.corrupted_files and dataset.val_is_test and not dataset.val
    opts = [f"DATASET.{word}" if i % 2 == 0 else word for i, word in enumerate(pairs)]
    code, out = run(capsys, "check", "ImageNetC", "--root", tmp_path, "--opts", *opts)
    assert code == 1 and f"{folder} has 3 of 1000 class folders" in out
    assert "3 classes; train, val, test: -, -, 3; 1000 classes and -, -, 50,000 were expected" in out
    code, out = run(capsys, "check", "ImageNetC", "--root", tmp_path, "--opts", *opts[4:])
    assert code == 1 and "FAULT  DATASET.CORRUPTION must be one of ('gaussian_noise', " in out
    with pytest.raises(InputError, match="there is no folder .*fog/5|imagenet-c/fog/5"):
        build("ImageNetC", tmp_path, *pairs[:3], "5", *pairs[4:])
    opts = ["DATASET.CORRUPTION", "fog", "DATASET.SEVERITY", "5"]  # and no class names
    code, out = run(capsys, "check", "ImageNetC", "--root", tmp_path, "--opts", *opts)
    assert code == 1 and f"there is no folder {tmp_path}/imagenet-c/fog/5" in out and "classnames" not in out


def test_a_dataset_without_a_published_split_file_says_so(tmp_path, capsys, monkeypatch):
    code, out = run(capsys, "download", "ImageNet", "--split-only", "--root", str(tmp_path))
    assert code == 0 and "ImageNet has no published split file: there is nothing to download" in out
    monkeypatch.setitem(CATALOG, "DescribableTextures", replace(CATALOG["DescribableTextures"], split_id=""))
    (tmp_path / "dtd/images").mkdir(parents=True)
    with pytest.raises(InputError, match="split_zhou_DescribableTextures.json was expected .*: put it there, or set"):
        build("DescribableTextures", tmp_path)


def test_an_image_folder_is_checked(tmp_path, capsys):
    for part in ("train", "test"):
        for name in ("ape", "bear"):
            zoo_trees.touch(tmp_path / part / name / "1.png")
    assert run(capsys, "check", "ImageFolder", "--root", tmp_path)[0] == 0
    (tmp_path / "train/cat").mkdir()
    code, out = run(capsys, "check", "imagefolder", "--root", tmp_path)
    assert code == 1 and "train/cat holds no image" in out


def test_links_that_lead_round_are_followed_once(root, capsys):
    (root / "oxford_pets/images/again").symlink_to(root / "oxford_pets")
    assert run(capsys, "check", "OxfordPets", "--root", root)[0] == 0


def test_fewshot_draws_and_counts(root, capsys):
    code, out = run(capsys, "fewshot", "OxfordPets", "--root", root, "--shots", "2", "--seed", "3")
    assert code == 0 and "abyssinian" in out
    assert (root / "oxford_pets/split_fewshot/shot_2-seed_3.json").is_file()
    code, out = run(
        *(capsys, "fewshot", "OxfordPets", "--root", root, "--shots", "2", "--opts", "DATASET.SUBSAMPLE_CLASSES", "new")
    )
    assert code == 0 and "abyssinian" not in out and "yorkshire_terrier" in out


def test_class_names_stay_texts(tmp_path, capsys):
    names = ("001", "007", "1e3", "3.10", "1_000", "nan", "0x10", "-1")
    for part in ("train", "test"):
        for name in names:
            zoo_trees.touch(tmp_path / part / name / "1.png")
    code, out = run(capsys, "fewshot", "ImageFolder", "--root", tmp_path, "--shots", "1")
    assert code == 0 and {line.split()[1] for line in out.splitlines() if line.strip()[:1].isdigit()} == set(names)


def test_an_example_is_made(tmp_path, capsys):
    code, out = run(capsys, "example", tmp_path / "mine")
    assert code == 0 and "train" in out and (tmp_path / "mine/test/fruit").is_dir()
    assert run(capsys, "example", tmp_path / "mine")[0] == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    (
        (("explain", "OxfordPet"), "there is no dataset 'OxfordPet': did you mean 'OxfordPets'"),
        (("check", "EuroSAT", "--root", "/no/such/folder"), "DATASET.ROOT /no/such/folder does not exist"),
        (("fewshot", "EuroSAT", "--root", "/tmp", "--shots", "0"), "--shots must be 1 or more, but got 0"),
        (
            ("check", "EuroSAT", "--root", "/tmp", "--opts", "DATASET.NAMES", "x"),
            "are no pairs of config keys and values",
        ),
    ),
)
def test_wrong_usage_is_exit_code_2(argv, message, capsys):
    code, out = run(capsys, *argv)
    assert code == 2 and message in out and out.startswith("error: ")


def test_it_runs_as_a_module_from_elsewhere(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["datasets", "list"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("datasets", run_name="__main__")
    assert not stop.value.code and "OxfordPets" in capsys.readouterr().out


def test_an_unknown_command_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["frobnicate"])
    assert stop.value.code == 2
