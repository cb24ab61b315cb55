"""All entry points see the same pixels: one reader, whatever the format, the depth, the ground and the turn."""

import copy
import csv
import io
import struct

import numpy as np
import pytest
from dassl.utils import ImageError
from dassl.utils import read_image as dassl_read_image
from hostile import call
from PIL import Image

import train
from datasets.care.check import check
from tlla.errors import InputError
from tlla.views.loader import load_views
from tlla.views.make import ViewConfig
from tlla.views.read_image import read_image

H, W = 30, 40
RAMP = np.linspace(0, 65535, H * W).reshape(H, W).round().astype(np.uint16)
GREY = (RAMP / 257 + 0.5).astype(np.uint8)  # what it means in 8 bits
COLOURS = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
ALPHA = np.where(np.arange(W) < 20, 0, 255).astype(np.uint8) * np.ones((H, 1), np.uint8)
ON_WHITE = np.where(ALPHA[..., None] == 255, COLOURS, 255)


def tiff(values: np.ndarray, bits: int, sample_format: int = 1, photometric: int = 1, order: str = "<") -> bytes:
    """Grey pixels, uncompressed; 12 bits are packed."""
    if bits == 12:
        a, b = values.reshape(-1, 2).astype(np.uint32).T
        data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    else:
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    rows = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in {**tags, 339: sample_format}.items()
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags) + 1) + rows + bytes(4)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(COLOURS), "PNG", exif=exif)


def palette() -> bytes:
    image = Image.fromarray((ALPHA == 255).astype(np.uint8), "P")
    image.putpalette([9, 9, 9, 10, 20, 30])
    return encoded(image, "PNG", transparency=0)


CMYK = Image.fromarray(COLOURS).convert("CMYK")
READ = {  # file -> (its bytes, the pixels that it means)
    "16.png": (encoded(Image.fromarray(RAMP), "PNG"), GREY),
    "16.pgm": (b"P5 40 30 65535\n" + RAMP.astype(">u2").tobytes(), GREY),
    "16 as text.pgm": (b"P2 40 30 65535\n" + b" ".join(b"%d" % v for v in RAMP.flat), GREY),
    "12.pgm": (
        b"P5 40 30 4095\n" + (RAMP >> 4).astype(">u2").tobytes(),
        ((RAMP >> 4) * (255 / 4095) + 0.5).astype("u1"),
    ),
    "16 little.tif": (tiff(RAMP, 16), GREY),
    "16 big.tif": (tiff(RAMP, 16, order=">"), GREY),
    "16 white is 0.tif": (tiff(65535 - RAMP, 16, photometric=0), GREY),
    "12.tif": (tiff(RAMP >> 4, 12), ((RAMP >> 4) * (255 / 4095) + 0.5).astype("u1")),
    "16 dark.png": (encoded(Image.fromarray(RAMP // 300), "PNG"), (RAMP // 300 / 257 + 0.5).astype("u1")),
    "rgba.png": (encoded(Image.fromarray(np.dstack([COLOURS, ALPHA])), "PNG"), ON_WHITE),
    "la.png": (encoded(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"), np.where(ALPHA == 255, GREY, 255)),
    "palette.png": (palette(), np.where(ALPHA[..., None] == 255, (10, 20, 30), 255)),
    "cmyk.tif": (encoded(CMYK, "TIFF"), np.asarray(CMYK.convert("RGB"))),
    "turned.png": (turned(6), np.rot90(COLOURS, -1)),
    "mirrored.png": (turned(2), COLOURS[:, ::-1]),
}
SIGNED = RAMP.view(np.int16)
REFUSED = {  # file -> (its bytes, its mode)
    "32.tif": (tiff(RAMP.astype(np.uint32), 32), "I"),
    "32 signed.tif": (tiff(RAMP.astype(np.int32) * 9, 32, 2), "I"),
    "16 signed.tif": (tiff(SIGNED, 16, 2), "I"),
    "float.tif": (tiff(RAMP.astype(np.float32) / 65535, 32, 3), "F"),
    "float.pfm": (b"Pf\n40 30\n-1.0\n" + RAMP.astype("<f4").tobytes(), "F"),
}


def rgb(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All files as train/a, val/a and test/a, beside a plain image in the class b."""
    root = tmp_path_factory.mktemp("images")
    for part in ("train", "val", "test"):
        for name in "ab":
            (root / part / name).mkdir(parents=True)
        for file, (data, _) in {**READ, **REFUSED}.items():
            (root / part / "a" / file).write_bytes(data)
        Image.fromarray(COLOURS).save(root / part / "b/plain.png")
    return root


@pytest.fixture(scope="module")
def trainer(place, folder):
    argv = place.argv("TLLA", "reads", "--dataset-config-file", "configs/datasets/image_folder.yaml")
    return train.build_trainer(train.build_cfg(train.parse_args([*argv, "--root", str(folder)])))


def from_loader(trainer, split, path):
    dataset = copy.copy(getattr(trainer, f"{split}_loader{'_x' if split == 'train' else ''}").dataset)
    dataset.transform = np.asarray
    number = next(i for i, item in enumerate(dataset.data_source) if item.impath.endswith(f"/{path.name}"))
    return dataset[number]["img"]


def from_views(trainer, path):
    dataset = copy.copy(trainer.tester.dataset("test"))
    dataset.on_device = True  # then an item is the decoded image
    number = next(i for i, item in enumerate(dataset.items) if item.impath.endswith(f"/{path.name}"))
    return dataset[number]["img"].permute(1, 2, 0).numpy()


def from_predictor(trainer, path):
    loaded = load_views(0, path, ViewConfig(8, 1), thumbnail=True)
    if loaded.views is None:
        raise InputError(loaded.reason)
    return np.asarray(loaded.thumbnail)


def from_a_pillow_image(trainer, path):
    with Image.open(path) as image:
        return np.asarray(read_image(image))


READERS = {
    "the API": lambda trainer, path: np.asarray(read_image(path)),
    "the API, an open image": from_a_pillow_image,
    "training": lambda trainer, path: from_loader(trainer, "train", path),
    "a test on val": lambda trainer, path: from_loader(trainer, "val", path),
    "a test": lambda trainer, path: from_loader(trainer, "test", path),
    "a test with views": from_views,
    "predict.py": from_predictor,
}


def far(found, file):
    """Whether what was read is not what a file means."""
    return np.abs(found.astype(int) - rgb(READ[file][1])).max() > (file == "12.pgm")


@pytest.mark.parametrize("reader", READERS)
def test_every_entry_point_sees_what_a_file_means_or_refuses_it(trainer, folder, reader):
    found = {file: READERS[reader](trainer, folder / "test/a" / file) for file in READ}
    assert not [file for file, pixels in found.items() if pixels.dtype != np.uint8 or far(pixels, file)]
    for file, (_, mode) in REFUSED.items():  # whose brightness is not agreed
        with pytest.raises(InputError, match=f"has pixels of mode {mode} in a .*save it with 8 or 16 bits"):
            READERS[reader](trainer, folder / "test/a" / file)


def test_check_finds_what_the_entry_points_refuse(trainer, folder):
    texts = [finding.text for finding in check("ImageFolder", trainer.cfg.DATASET, deep=True) if finding.fault]
    count = 3 * (len(READ) + len(REFUSED) + 1)
    found = next(text for text in texts if "cannot be read" in text)
    assert found.startswith(f"{3 * len(REFUSED)} of {count} images") and "has pixels of mode F" in found


def test_predict_names_what_the_entry_points_refuse(place, folder, capfd, tmp_path):
    argv = ("--backbone", place.folder / "clip.pt", "--classes", "a", "b", "--method", "single")
    outcome = call(capfd, "predict", folder / "test", *argv, "--csv", tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert outcome.code == 1 and len(rows) == len(READ) + len(REFUSED) + 1
    assert {row["file"].rpartition("/")[2] for row in rows if row["error"]} == set(REFUSED)


def test_the_toolkits_own_reader_scales_deep_grey_too(folder):
    for file in (name for name in READ if name.startswith(("16", "12")) and "white" not in name):
        assert not far(np.asarray(dassl_read_image(str(folder / "test/a" / file))), file), file
    for file, (_, mode) in REFUSED.items():
        with pytest.raises(ImageError, match=f"mode {mode}"):
            dassl_read_image(str(folder / "test/a" / file))
