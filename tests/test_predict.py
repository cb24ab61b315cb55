"""predict.py: one's own images from the command line; and the reading of images of all kinds."""

import csv
import io
import json
import os

import numpy as np
import pytest
import torch
from benchmark import CLASSES, Workplace
from conftest import TINY_VIT, make_clip
from PIL import Image, ImageOps

from tlla.clip import load_clip
from tlla.errors import InputError
from tlla.predict import command as predict
from tlla.predict.explain import AGREES, draw, looks
from tlla.predict.paths import find_images
from tlla.predict.predictor import Predictor
from tlla.selection import entropy
from tlla.views.make import ViewConfig, make_views
from tlla.views.read_image import read_image

VIEWS = ("--views", "6", "--set", "top_s=3", "n_perturb=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights, and a SAPT run with its test by TLLA."""
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("SAPT", "sapt")
    place.run("TLLA", "tlla", "--eval-only", "--model-dir", str(place.folder / "sapt"))
    return place


@pytest.fixture
def photos(place):
    return sorted((place.folder / "data/emoji/noto/test").rglob("*.png"))


@pytest.fixture
def cli(capsys):
    """Runs predict.py: exit code, stdout, stderr."""

    def run(*argv):
        capsys.readouterr()
        code = predict.main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return run


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def columns(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def test_the_predictions_are_those_of_train_py(place, cli, tmp_path, photos):
    """The run's folder says classes and backbone; test images in the order of the dataset."""
    argv = [*photos, "--prompt", place.folder / "sapt", *VIEWS, "--seed", "1", "--csv", tmp_path / "p.csv"]
    assert cli(*argv)[0] == 0
    ours = rows_of(tmp_path / "p.csv")
    theirs = list(csv.DictReader(io.StringIO(place.predictions("tlla"))))
    assert len(ours) == len(theirs) == 15
    assert [CLASSES.index(row["prediction"]) for row in ours] == [int(row["prediction"]) for row in theirs]
    for column, other in (("probability", "confidence"), ("agreement", "agreement"), ("unanimous", "unanimous")):
        assert [float(r[column]) for r in ours] == pytest.approx([float(r[other]) for r in theirs], abs=2e-6)


def test_a_checkpoint_says_what_its_prompt_is_for(place):
    path = place.folder / "sapt/prompt_learner/model.pth.tar-3"
    entry = torch.load(path, weights_only=True)["trainer"]["prompt"]
    assert entry["class_names"] == list(CLASSES) and entry["class_token_position"] == "end"
    assert entry["backbone"] == str(place.folder / "clip.pt") and len(entry["weights_sha256"]) == 64


def test_another_backbone_than_the_checkpoints_is_refused(place, cli, tmp_path, photos):
    torch.save(make_clip(TINY_VIT, seed=1).state_dict(), tmp_path / "other.pt")
    code, out, err = cli(photos[0], "--prompt", place.folder / "sapt", "--backbone", tmp_path / "other.pt")
    assert (code, out) == (2, "") and "was learned for the backbone" in err and "other weights" in err


def test_a_checkpoint_without_the_note_loads_but_needs_class_names(place, cli, tmp_path, photos):
    old = torch.load(place.folder / "sapt/prompt_learner/model.pth.tar-3", weights_only=True) | {"trainer": {}}
    torch.save(old, tmp_path / "old")
    argv = [*photos, "--backbone", place.folder / "clip.pt", "--prompt", tmp_path / "old", *VIEWS]
    code, _, err = cli(*argv)
    assert code == 2 and "does not name the classes: add --classes" in err
    assert cli(*argv, "--classes", *CLASSES, "--csv", tmp_path / "old.csv")[0] == 0
    assert cli(*photos, "--prompt", place.folder / "sapt", *VIEWS, "--csv", tmp_path / "new.csv")[0] == 0
    assert columns(rows_of(tmp_path / "old.csv"), "probability") == columns(
        rows_of(tmp_path / "new.csv"), "probability"
    )


@pytest.mark.parametrize("entry", [{"class_names": "bird"}, {"class_names": [1]}, "x", {"class_names": []}])
def test_a_damaged_note_is_an_input_error(place, cli, tmp_path, photos, entry):
    state = torch.load(place.folder / "sapt/prompt_learner/model.pth.tar-3", weights_only=True)
    torch.save(state | {"trainer": {"prompt": entry}}, tmp_path / "odd")
    code, _, err = cli(
        photos[0], "--prompt", tmp_path / "odd", "--classes", "a", "--backbone", place.folder / "clip.pt"
    )
    assert code == 2 and "is damaged" in err and err.count("\n") == 1


def test_class_names_come_from_the_line_a_file_or_a_folder(place, cli, tmp_path, photos):
    (tmp_path / "names.txt").write_text("\ufeffbird\n\n  land vehicle \ntool\n", encoding="utf-8")
    (tmp_path / "utf16.txt").write_text("bird\r\nland vehicle\r\ntool\r\n", encoding="utf-16")
    for name in (*CLASSES, ".hidden"):
        (tmp_path / "folders" / name).mkdir(parents=True)
    sources = [
        ("--classes", *CLASSES),
        ("--classes-file", tmp_path / "names.txt"),
        ("--classes-file", tmp_path / "utf16.txt"),
        ("--classes-from", tmp_path / "folders"),
    ]
    base = [photos[0], "--backbone", place.folder / "clip.pt", "--method", "single"]
    outputs = {cli(*base, *source)[1] for source in sources}
    assert len(outputs) == 1 and "land vehicle" in outputs.pop()


def test_folders_patterns_and_the_standard_input_name_images(place, cli, monkeypatch, photos, tmp_path):
    folder = place.folder / "data/emoji/noto/test"
    inputs = [[folder], [folder / "*" / "*.png"], [folder / "**" / "*.png"], photos]
    base = ["--backbone", place.folder / "clip.pt", "--method", "single", "--classes", *CLASSES]
    found = []
    for n, given in enumerate(inputs):
        assert cli(*given, *base, "--csv", tmp_path / f"{n}.csv")[0] == 0
        found.append(columns(rows_of(tmp_path / f"{n}.csv"), "file", "prediction", "probability"))
    for separator, flags in ((b"\n", ()), (b"\0", ("-0",))):
        text = separator.join(os.fsencode(p) for p in photos)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert cli("-", *flags, *base, "--csv", tmp_path / "stdin.csv")[0] == 0
        found.append(columns(rows_of(tmp_path / "stdin.csv"), "file", "prediction", "probability"))
    assert all(rows == found[0] for rows in found) and len(found[0]) == 15


def test_folders_are_searched_for_what_is_named_as_images_are(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a/deep/3.webp", "notes.txt", ".hidden/4.png", "a/.5.png", "0.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(path, tmp_path) for path in find_images([str(tmp_path)])]
    assert found == ["0.heic", "a/deep/3.webp", "b/1.png", "b/2.JPG"]
    assert find_images([str(tmp_path / "notes.txt")]) == [str(tmp_path / "notes.txt")]


def test_bad_files_are_reported_and_the_rest_is_predicted(place, cli, tmp_path, photos):
    cut, text, pipe = tmp_path / "cut.png", tmp_path / "text.jpg", tmp_path / "pipe.png"
    cut.write_bytes(photos[0].read_bytes()[:400])
    text.write_text("hello")
    os.mkfifo(pipe)
    bad = [cut, text, pipe, tmp_path / "absent.png"]
    argv = [photos[0], *bad, photos[1], "--backbone", place.folder / "clip.pt", "--classes", *CLASSES, *VIEWS]
    code, out, err = cli(*argv, "--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl")
    assert code == 1 and len(out.splitlines()) == 4  # two lines of header
    assert all(str(path) in err for path in bad) and "4 could not be read" in err
    rows = rows_of(tmp_path / "a.csv")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [bool(row["error"]) for row in rows] == ["error" in line for line in lines] == [False, *[True] * 4, False]
    assert [line["index"] for line in lines] == list(range(6))
    # The views depend on the index alone, so that a bad neighbour changes nothing.
    assert rows[5]["prediction"] == lines[5]["prediction"] == lines[5]["top"][0][0]


def test_names_of_any_bytes_are_printed_and_kept(place, cli, tmp_path, photos):
    odd = [tmp_path / "new\nline.png", tmp_path / os.fsdecode(b"\xff\xfe.png"), tmp_path / "ünïcode 🐦.png"]
    for path in odd:
        path.write_bytes(photos[0].read_bytes())
    absent = tmp_path / "a\nb.png"
    argv = [*odd, absent, "--backbone", place.folder / "clip.pt", "--classes", *CLASSES, "--method", "single"]
    code, out, err = cli(*argv, "--jsonl", tmp_path / "o.jsonl", "--csv", tmp_path / "o.csv")
    assert code == 1 and len(out.splitlines()) == 5 and len(err.splitlines()) == 2
    out.encode()  # or print would have failed on a terminal
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [str(path) for path in (*odd, absent)]
    assert os.fsencode(odd[1]) in (tmp_path / "o.csv").read_bytes()


def stops_after(n):
    """A Predictor.batches that is stopped by Ctrl-C after n batches."""
    real = Predictor.batches

    def batches(self, *args, **kwargs):
        for done, batch in enumerate(real(self, *args, **kwargs)):
            if done == n:
                raise KeyboardInterrupt
            yield batch

    return batches


def test_a_stopped_run_resumes_and_ends_the_same(place, cli, tmp_path, photos, monkeypatch):
    argv = [*photos, "--prompt", place.folder / "sapt", *VIEWS, "--batch-views", "24"]
    assert cli(*argv, "--csv", tmp_path / "whole.csv")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "batches", stops_after(2))
        code, _, err = cli(*argv, "--csv", tmp_path / "cut.csv")
    (part,) = tmp_path.glob("cut.csv.*.part")
    assert code == 130 and "stopped after 8 of 15" in err and str(part) in err
    assert not (tmp_path / "cut.csv").exists() and len(part.read_text().splitlines()) == 8
    part.write_bytes(part.read_bytes()[:-9])  # killed while writing: that batch is done again
    assert "resuming after 4 of 15" in cli(*argv, "--csv", tmp_path / "cut.csv")[2]
    whole, cut = (columns(rows_of(tmp_path / f"{n}.csv"), "file", "probability", "sharpness") for n in ("whole", "cut"))
    assert whole == cut and not list(tmp_path.glob("*.part"))


def test_rows_of_other_settings_are_not_taken(place, cli, tmp_path, photos, monkeypatch):
    argv = [*photos, "--prompt", place.folder / "sapt", *VIEWS, "--batch-views", "24", "--csv", tmp_path / "a.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "batches", stops_after(1))
        assert cli(*argv)[0] == 130
    assert "going on" not in cli(*argv, "--seed", "7")[2]
    assert "going on" not in cli(*argv, "--fresh")[2]


def test_a_stop_without_a_file_prints_what_is_done(place, cli, photos, monkeypatch):
    monkeypatch.setattr(Predictor, "batches", stops_after(1))
    code, out, _ = cli(*photos, "--prompt", place.folder / "sapt", *VIEWS, "--batch-views", "24")
    assert code == 130 and len(out.splitlines()) == 2 + 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing/*.jpg"], "no file matches"),
        (["{folder}/empty"], "no images in the folder"),
        (["{photo}", "--classes", "a", "b", "a"], "twice: 'a'"),
        (["{photo}", "--classes-file", "absent.txt"], "cannot be read"),
        (["{photo}", "--classes-from", "{photo}"], "not a folder"),
        (["{photo}", "--classes-from", "{folder}/empty"], "no class names"),
        (["{photo}"], "there are no class names: add"),
        (["{photo}", "--classes", "a", "--prompt", "imagnet7"], "did you mean 'imagenet7'"),
        (["{photo}", "--classes", "a", "--prompt", "{} {}"], "more than one"),
        (["{photo}", "--classes", "a", "--method", "zeroo"], "did you mean 'ZERO'"),
        (["{photo}", "--classes", "a", "--set", "tops=3"], "did you mean 'top_s'"),
        (["{photo}", "--classes", "a", "--set", "top_s"], "NAME=VALUE"),
        (["{photo}", "--classes", "a", "--set", "top_s=many"], "of the type int"),
        (["{photo}", "--classes", "a", "--views", "0", "--method", "mean"], "at least 1"),
        (["{photo}", "--classes", "a", "--views", "8"], "TOP_S must lie"),
        (["{photo}", "--classes", "a", "--crop-scale", "0", "2"], "CROP_SCALE"),
        (["{photo}", "--classes", "a", "--top-k", "0"], "top_k"),
        (["{photo}", "--classes", "a", "--method", "zero", "--explain", "x"], "--explain"),
        (["{photo}", "--classes", "a", "--backbone", "ViT-Q"], "no CLIP named"),
        (["{photo}", "--classes", "a", "--device", "warp"], "--device warp"),
        (["{photo}", "--classes", "a", "--csv", "{folder}"], "is a folder"),
        (["-", "-", "--classes", "a"], "can be given once"),
    ],
)
def test_wrong_input_is_one_sentence(place, cli, photos, tmp_path, argv, message):
    (tmp_path / "empty").mkdir()
    argv = [word.replace("{photo}", str(photos[0])).replace("{folder}", str(tmp_path)) for word in argv]
    if "--backbone" not in argv:
        argv += ["--backbone", str(place.folder / "clip.pt")]
    code, out, err = cli(*argv)
    assert (code, out) == (2, "") and message in err and err.startswith("error: ") and err.count("\n") == 1


def test_each_image_is_drawn_with_the_views_that_voted(place, cli, tmp_path, photos):
    argv = [*photos[:2], "--prompt", place.folder / "sapt", *VIEWS, "--explain", tmp_path / "views"]
    assert cli(*argv)[0] == 0
    drawn = sorted((tmp_path / "views").iterdir())
    assert [path.name for path in drawn] == ["00000_0.png", "00001_1.png"]
    assert all(Image.open(path).width > 1000 for path in drawn)


def test_a_drawing_shows_the_lowest_scores_as_voters(place, photos):
    model = load_clip(str(place.folder / "clip.pt"))
    predictor = Predictor(model, CLASSES, place.folder / "sapt", n_views=6, top_s=3, n_perturb=2)
    (batch,) = predictor.batches(photos[:1], thumbnails=True)
    ((index, look),) = looks(batch, predictor.views)
    text = predictor.classifier.perturbed(0.5, 2, 0)[:, 0]
    entropies = entropy(100 * batch.features[0] @ text.mT)  # (R + 1, V)
    score = entropies[0] + (entropies[1:].amax(dim=0) - entropies[0])
    assert index == 0 and look.kept == score.argsort()[:3].tolist()
    assert look.score == pytest.approx(score.tolist(), abs=1e-4)
    agreeing = sum(look.votes[v] == look.prediction for v in look.kept)
    assert look.agreement == pytest.approx(agreeing / 3)
    rises = (entropies[1:].amax(dim=0) - entropies[0])[look.kept]
    assert batch.predictions.sharpness[0].item() == pytest.approx(rises.mean().item(), abs=1e-4)
    blue = tuple(int(AGREES[i : i + 2], 16) for i in (1, 3, 5))
    side = np.asarray(draw(look))[:, 400:]  # without the panel on the left
    assert (side == blue).all(axis=-1).any()


# Images


def noise(mode="RGB", size=(12, 9)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path, orientation):
    image, exif = noise(), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a.png")).convert("RGB")
    assert read_image(tmp_path / "a.png").tobytes() == expected.tobytes()


def test_transparent_pixels_are_white(tmp_path):
    rgba = noise("RGBA")
    rgba.putpixel((0, 0), (9, 9, 9, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    rgba.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.getpixel((0, 0)) == (255, 255, 255) and found.getpixel((1, 0)) == (127, 127, 127)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert [read_image(tmp_path / "p.png").getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (40, 50, 60)]


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 1, 128, 255]
    Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match="mode F in a TIFF file"):
        read_image(tmp_path / "f.tif")


def test_the_content_decides_what_a_file_is(tmp_path):
    noise().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.txt")
    assert read_image(tmp_path / "a.txt").tobytes() == noise().tobytes()


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr", "P"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = noise(mode)
    image.save(tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png"))
    found = read_image(next(tmp_path.iterdir()))
    assert found.mode == "RGB" and found.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (3, 500)])
def test_odd_sizes_have_views(tmp_path, place, size):
    noise(size=size).save(tmp_path / "a.png")
    assert make_views(read_image(tmp_path / "a.png"), 0, ViewConfig(8, 4)).shape == (4, 3, 8, 8)


def test_what_is_too_large_or_too_long_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (20001, 10)).save(tmp_path / "long.png")
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for name, reason in (("long", "longer than 2,000 times"), ("bomb", "pixels")):
        with pytest.raises(InputError, match=reason):
            read_image(tmp_path / f"{name}.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", None)  # a library has switched Pillow's own check off
    with pytest.raises(InputError, match="pixels"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: os.mkfifo(p), "is a pipe"),
        (lambda p: p.write_bytes(b""), "not an image"),
        (lambda p: p.write_text("hello"), "not an image"),
        (lambda p: p.symlink_to("/dev/zero"), "a pipe, a socket or a device"),
        (lambda p: p.symlink_to("nowhere"), "no image file"),
    ],
)
def test_what_is_no_image_file_is_named(tmp_path, make, reason):
    make(tmp_path / "a.png")
    with pytest.raises(InputError, match=reason):
        read_image(tmp_path / "a.png")


def test_the_agreement_of_the_votes_is_drawn_for_a_method_that_does_not_count_it():
    model, image = load_clip("EmojiCLIP"), Image.linear_gradient("L").convert("RGB")
    predictor = Predictor(model, ["bird", "fruit", "tool"], n_views=8, top_s=5)
    batch = next(predictor.batches([image], thumbnails=True))
    counted = batch.predictions.details.pop("agreement")
    ((_, look),) = looks(batch, predictor.views)
    assert look.agreement == pytest.approx(counted.item())
