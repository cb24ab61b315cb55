"""Images that are odd, broken or hostile, in folders that train.py tests on and `python -m datasets` looks after.

An odd image gives the prediction of a plain PNG with the pixels that it means; a broken one is named in one sentence.
"""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from benchmark import Workplace
from hostile import FOLDER, accepted, call, refused
from PIL import EpsImagePlugin, Image

SURROGATE = os.fsdecode(b"\xff\xfe.png")


def noise(width=40, height=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(seed=0) -> Image.Image:
    """Blocks of colour: they outlast JPEG, and no two seeds look alike."""
    return Image.fromarray(noise(4, 3, seed)).resize((40, 30), Image.Resampling.NEAREST)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_says(width: int, height: int, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Odd images: name of the file -> (its bytes, the picture that it means). tests/test_one_reader.py has other depths,
# transparency, CMYK and turned ones.


def odd(image: Image.Image, kind: str = "PNG", frames=(), **options):
    meant = Image.open(io.BytesIO(encoded(image, kind, **options))).convert("RGB")  # GIF has 256 colours
    moving = {"save_all": True, "append_images": list(frames), "duration": 50} if frames else {}
    return encoded(image, kind, **options, **moving), meant


FRAMES = (picture(9), picture(10))
ODD = {
    "one bit.png": odd(picture(6).convert("1")),
    "animated.gif": odd(picture(8), "GIF", FRAMES),
    "animated.png": odd(picture(8), "PNG", FRAMES),
    "animated.webp": odd(picture(8), "WEBP", FRAMES, lossless=True),
    "one pixel.png": odd(Image.fromarray(noise(1, 1, 11))),
    "one column.png": odd(Image.fromarray(noise(1, 300, 11))),
    "wide.png": odd(Image.fromarray(noise(20000, 10, 11))),
    "tall.png": odd(Image.fromarray(noise(10, 20000, 11))),
    "jpeg in truth.png": odd(picture(13), "JPEG", quality=100, subsampling=0),
    "png in truth.jpeg": odd(picture(14)),
    "with a tail.png": (encoded(picture(12), "PNG") + b"<script>" * 500, picture(12)),
    "new\nline.png": odd(picture(15)),
    "quote\"'`$(touch hacked).png": odd(picture(16)),
    "🦊 שועל.png": odd(picture(17)),
    "-rf.png": odd(picture(18)),
    SURROGATE: odd(picture(19)),
    "n" * 250 + ".png": odd(picture(20)),
}


@pytest.fixture(scope="module")
def predictions(place, tmp_path_factory):
    """Trainer -> columns label, prediction and confidence of the odd images, and of what they mean."""
    roots = {name: tmp_path_factory.mktemp(name) for name in ("odd", "plain")}
    for name, root in roots.items():
        for file, (data, meant) in ODD.items():
            (root / "test/ape").mkdir(parents=True, exist_ok=True)
            (root / "test/ape" / file).write_bytes(data if name == "odd" else encoded(meant, "PNG"))
        for other in ("bear", "cat"):
            (root / f"test/{other}").mkdir()
            picture().save(root / f"test/{other}/0.png")
    found = {}
    for trainer in ("ZeroshotCLIP", "STSS"):
        for name, root in roots.items():
            place.run(trainer, f"{trainer}_{name}", *FOLDER, "--root", str(root))
            rows = place.rows(f"{trainer}_{name}")
            found[trainer, name] = dict(zip(sorted(ODD), rows, strict=False))
    return found


@pytest.mark.parametrize("trainer", ("ZeroshotCLIP", "STSS"))
def test_odd_images_are_seen_as_they_are_meant(predictions, trainer):
    for file in ODD:
        odd, plain = (predictions[trainer, name][file] for name in ("odd", "plain"))
        assert odd["label"] == plain["label"] == "0" and odd["prediction"] == plain["prediction"], ascii(file)
        assert float(odd["confidence"]) == pytest.approx(float(plain["confidence"]), abs=0.02), ascii(file)


BROKEN = {
    "cut.png": encoded(Image.fromarray(noise(200, 200)), "PNG")[:20_000],
    "cut.jpg": encoded(Image.fromarray(noise(200, 200)), "JPEG")[:5_000],
    "cut.webp": encoded(Image.fromarray(noise(200, 200)), "WEBP")[:5_000],
    "cut.gif": encoded(Image.fromarray(noise(200, 200)), "GIF")[:5_000],
    "cut.tiff": encoded(Image.fromarray(noise(200, 200)), "TIFF")[:5_000],
    "only a header.png": png_that_says(100, 100),
    "no bytes.png": b"",
    "text.png": b"this is no image\n",
    "page.jpg": b"<!doctype html><title>404</title>",
    "decompression bomb.png": png_that_says(60_000, 60_000, zlib.compress(bytes(1 << 20))),
    "no width.png": png_that_says(0, 100, zlib.compress(bytes(100))),
    "2 to the 31 wide.png": png_that_says(2**31 - 1, 2**31 - 1, b"x"),
    "broken\nname.png": b"x",
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(hacked) (w) file\n",
    "postscript.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(hacked) (w) file\n",
    "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
}


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("ape", "bear")):
        (tmp_path / "test" / name).mkdir(parents=True)
        picture(seed).save(tmp_path / "test" / name / "good.png")
    return tmp_path


@pytest.mark.parametrize("file", BROKEN, ids=ascii)
def test_a_broken_image_is_one_sentence_that_names_it(place, root, capfd, file, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("a program was started"))
    (root / "test/bear" / file).write_bytes(BROKEN[file])
    argv = place.argv("ZeroshotCLIP", "broken", *FOLDER, "--root", str(root))
    refused(capfd, "train", *argv, says=(file.replace("\n", "\\n"),))
    found = call(capfd, "datasets", "check", "ImageFolder", "--root", root, "--deep")
    assert found.code == 1 and "1 of 3 images cannot be read" in found.out
    assert not (place.folder / "broken/results.json").exists()


@pytest.mark.parametrize(("trainer", "workers"), (("ZeroshotCLIP", "2"), ("TLLA", "2")))
def test_a_broken_image_is_named_with_its_index_by_any_process(place, root, capfd, trainer, workers):
    (root / "test/bear/a.png").write_bytes(BROKEN["cut.png"])
    argv = place.argv(trainer, "index", *FOLDER, "--root", str(root), "--eval-only", "DATALOADER.NUM_WORKERS", workers)
    refused(capfd, "train", *argv, says=("item 1 of 3", root / "test/bear/a.png"))


def test_broken_images_are_left_out_on_request_and_all_the_rest_is_tested(place, root):
    for file, data in BROKEN.items():
        (root / "test/bear" / file).write_bytes(data)
    test = place.run("STSS", "skip", *FOLDER, "--root", str(root), "TEST.SKIP_BAD_IMAGES", "True")["splits"]["test"]
    assert test["total"] == 2 and len(test["skipped"]) == len(BROKEN)


NO_FILES = {  # what to make, and how it is counted; None: as an image that is missing
    "a folder.png": (lambda path: (path.mkdir(), (path / "note.txt").touch()), "1 folder (test/bear/a folder.png)"),
    "a pipe.png": (os.mkfifo, "1 pipe, socket or device (test/bear/a pipe.png)"),
    "a device.png": (lambda path: path.symlink_to("/dev/zero"), "1 pipe, socket or device (test/bear/a device.png)"),
    "a broken link.png": (lambda path: path.symlink_to("nowhere"), None),
    "a link to itself.png": (lambda path: path.symlink_to(path.name), None),
}


@pytest.mark.parametrize("file", NO_FILES)
def test_what_is_no_file_is_said_in_folders_and_missed_in_splits(place, root, capfd, file):
    make, counted = NO_FILES[file]
    make(root / "test/bear" / file)
    lacks = f"test/bear/{file}"
    argv = place.argv("ZeroshotCLIP", "left", *FOLDER, "--root", str(root))
    check = ("datasets", "check", "ImageFolder", "--root", root, "--deep")
    if counted:
        assert counted in accepted(capfd, "train", *argv).out
        accepted(capfd, *check)
        assert len(place.predictions("left").splitlines()) == 3
    else:
        refused(capfd, "train", *argv, says=(f"lacks 1 of 3 images: {lacks}",))
        assert f"1 of 3 images are missing: {lacks}" in call(capfd, *check).out
    (root / "split.csv").write_text(f"path,class,split\ntest/ape/good.png,ape,test\n{lacks},bear,test")
    refused(capfd, "train", *argv, "DATASET.SPLIT_FILE", "split.csv", says=(f"lacks 1 of 2 images: {lacks}",))


def test_a_missing_image_of_the_benchmark_is_counted_and_named(tmp_path, capfd):
    place = Workplace(tmp_path)
    (tmp_path / "data/emoji/noto/val/0/1.png").unlink()
    refused(capfd, "train", *place.argv("SAPT", "missing"), says=("lacks 1 of 12", "noto/val/0/1.png"))


def test_a_root_that_is_not_utf8_works(place, tmp_path, capfd):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        (root / "test/ape").mkdir(parents=True)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (root / "test/bear").mkdir()
    for name in ("ape", "bear"):
        picture().save(root / "test" / name / "1.png")
    accepted(capfd, "train", *place.argv("ZeroshotCLIP", "latin", *FOLDER, "--root", str(root)))
    assert accepted(capfd, "datasets", "check", "ImageFolder", "--root", root).code == 0
