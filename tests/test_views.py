"""Views: TPT's distribution, torchvision's pixels, and randomness from (seed, image, view) alone."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TF

from tlla.backbones.openai_package import clip
from tlla.clip import normalize
from tlla.errors import InputError
from tlla.precision import float32_products
from tlla.views.augmix import AUGMIX_OPS, augmix
from tlla.views.device import _geometry, _n_taps, _weights, make_views_on_device
from tlla.views.make import ViewConfig, _crop_box, _view_uniforms, centre_crop_geometry, draw_crops, make_views


@pytest.fixture
def image():
    """A smooth random picture, 60 x 45."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((60, 45), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(60, 45), (45, 60), (33, 33), (31, 97), (500, 375)])
def test_view_0_is_clips_own_preprocessing(image, size):
    image = image.resize(size)
    views = make_views(image, 0, ViewConfig(size=32, n_views=1))
    assert torch.equal(normalize(views[0]), clip._transform(32)(image))


def test_crops_and_flips_equal_torchvisions_for_the_same_boxes(image):
    config = ViewConfig(size=32, n_views=9, seed=5)
    views = make_views(image, 3, config)
    flips = 0
    for v, row in enumerate(_view_uniforms(5, 3, 9)):
        if v == 0:
            continue
        left, top, right, bottom = _crop_box(row[:-1], 60, 45, config.scale)
        box = (top, left, bottom - top, right - left)
        expected = TF.resized_crop(image, *box, [32, 32], InterpolationMode.BILINEAR)
        flips += row[-1] < 0.5
        expected = TF.hflip(expected) if row[-1] < 0.5 else expected
        assert torch.equal(views[v], TF.pil_to_tensor(expected))
    assert 0 < flips < 8


@pytest.mark.parametrize("size", [(60, 45), (45, 60), (31, 97), (1, 300), (1, 1)])
def test_views_equal_pillows_crop_resize_and_flip_one_at_a_time(image, size):
    image = image.resize(size)
    views = make_views(image, 2, ViewConfig(size=32, n_views=7, seed=1))
    for v, row in enumerate(_view_uniforms(1, 2, 7)[1:], start=1):
        view = image.crop(_crop_box(row[:-1], *size, (0.08, 1.0))).resize((32, 32), Image.Resampling.BILINEAR)
        view = ImageOps.mirror(view) if row[-1] < 0.5 else view
        assert np.array_equal(views[v].permute(1, 2, 0), np.asarray(view))


@pytest.mark.parametrize(("size", "scale"), [((60, 45), (0.08, 1.0)), ((90, 20), (0.5, 0.9)), ((4, 200), (0.3, 1.0))])
def test_boxes_are_distributed_as_torchvisions(size, scale):
    n = 1500
    ours = np.array([_crop_box(u[:-1], *size, scale) for u in _view_uniforms(0, 0, n)], dtype=float)
    theirs = np.empty_like(ours)
    picture = Image.new("RGB", size)
    for i in range(n):
        top, left, h, w = RandomResizedCrop.get_params(picture, scale, (3 / 4, 4 / 3))
        theirs[i] = left, top, left + w, top + h
    error = np.sqrt((ours.var(0) + theirs.var(0)) / n) + 1e-9
    assert (np.abs(ours.mean(0) - theirs.mean(0)) / error < 4.5).all()
    assert ours.min() >= 0 and (ours[:, 2] <= size[0]).all() and (ours[:, 3] <= size[1]).all()


def test_a_view_depends_on_seed_image_and_view_alone(image):
    few, many = (make_views(image, 7, ViewConfig(size=32, n_views=n, seed=1)) for n in (4, 16))
    assert torch.equal(few, many[:4])
    for other in (make_views(image, 8, ViewConfig(32, 4, seed=1)), make_views(image, 7, ViewConfig(32, 4, seed=2))):
        assert torch.equal(few[0], other[0])
        assert not torch.equal(few[1], other[1])
    np.random.seed(0)  # the global generators play no part
    torch.manual_seed(99)
    assert torch.equal(few, make_views(image, 7, ViewConfig(size=32, n_views=4, seed=1)))


def test_augmix_views_are_mixtures_that_repeat(image):
    config = ViewConfig(size=32, n_views=6, augmix=True)
    views = make_views(image, 0, config)
    plain = make_views(image, 0, ViewConfig(size=32, n_views=6))
    assert views.dtype == torch.float32 and views.min() >= 0 and views.max() <= 1 + 1e-6
    assert torch.equal(views, make_views(image, 0, config))
    torch.testing.assert_close(views[0], plain[0] / 255)
    change = (views[1:] - plain[1:] / 255).abs().mean(dim=(1, 2, 3))
    assert (change > 0).all() and (change < 0.2).all()


def test_augmix_mixes_as_its_definition_says(image):
    """Replays the random draws in their order and mixes after normalisation, as TPT does."""
    rng = np.random.default_rng((0, 1, 2))
    weights, m = rng.dirichlet((1.0,) * 3), rng.beta(1.0, 1.0)
    x = normalize(TF.to_tensor(image))
    mix = torch.zeros_like(x)
    for w in weights:
        chain = image
        for _ in range(rng.integers(1, 4)):
            chain = AUGMIX_OPS[rng.integers(9)](chain, rng)
        mix += w * normalize(TF.to_tensor(chain))
    expected = m * x + (1 - m) * mix
    actual = normalize(torch.from_numpy(augmix(image, np.random.default_rng((0, 1, 2)))).permute(2, 0, 1))
    torch.testing.assert_close(actual, expected.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(60, 45), (45, 60), (16, 16)])
@pytest.mark.parametrize("op", range(5, 9))
def test_shears_and_shifts_have_the_pixels_of_pillows_bilinear_transform(image, op, size):
    image = image.resize(size)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sign = -1 if rng.random() > 0.5 else 1
        level = rng.uniform(0.1, 1.0)
        slope, dx, dy = sign * level * 0.3 / 10, *(sign * int(level * side / 3 / 10) for side in image.size)
        matrix = [(1, slope, 0, 0, 1, 0), (1, 0, 0, slope, 1, 0), (1, 0, dx, 0, 1, 0), (1, 0, 0, 0, 1, dy)][op - 5]
        expected = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        actual = AUGMIX_OPS[op](image, np.random.default_rng(seed))
        assert np.array_equal(np.asarray(actual), np.asarray(expected))


def on_device(image, index, config, device="cpu"):
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(device)
    return make_views_on_device(pixels, torch.from_numpy(draw_crops(*image.size, index, config)), config)


def rows_first(image, index, config):
    """The views by Pillow, with the passes one after the other: along the rows, then along the columns."""

    def resize(picture, size, resample):
        return picture.resize((size[0], picture.height), resample).resize(size, resample)

    size = (config.size, config.size)
    resized, (left, top) = centre_crop_geometry(*image.size, config.size)
    plain = resize(image, resized, Image.Resampling.BICUBIC).crop((left, top, left + size[0], top + size[1]))
    views = [plain]
    for *box, flip in draw_crops(*image.size, index, config).tolist():
        view = resize(image.crop(box), size, Image.Resampling.BILINEAR)
        views.append(ImageOps.mirror(view) if flip else view)
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


SIZES = [(60, 45), (45, 60), (16, 16), (31, 97), (250, 187), (1, 1), (1, 200), (200, 1), (2, 3), (32, 32), (1200, 900)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("smooth", [True, False])
def test_views_on_the_device_equal_the_cpus(image, size, smooth):
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = image.resize(size) if smooth else Image.fromarray(noise)
    config = ViewConfig(size=32, n_views=13, seed=3)
    views, expected = on_device(image, 4, config), make_views(image, 4, config)
    assert views.dtype == torch.uint8 and views.stride() == expected.stride()
    assert torch.equal(views, rows_first(image, 4, config))
    # Pillow 13 takes some crops columns first.
    difference = (views.int() - expected.int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.1


@pytest.mark.parametrize("precision", ["medium", "highest"])
def test_views_on_the_device_do_not_depend_on_autocast_or_precision(image, precision):
    config = ViewConfig(size=32, n_views=5)
    expected, before = on_device(image, 0, config), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(on_device(image, 0, config), expected)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_view_on_the_device_depends_on_seed_image_and_view_alone(image):
    few, many = (on_device(image, 7, ViewConfig(size=32, n_views=n, seed=1)) for n in (4, 16))
    assert torch.equal(few, many[:4])
    assert torch.equal(few[:1], on_device(image, 7, ViewConfig(size=32, n_views=1, seed=1)))
    assert not torch.equal(few[1], on_device(image, 8, ViewConfig(size=32, n_views=4, seed=1))[1])


@pytest.mark.parametrize("size", SIZES)
def test_weights_are_pillows_and_fit_tf32(size):
    config = ViewConfig(size=32, n_views=13, seed=3)
    geometry = _geometry(*size, torch.from_numpy(draw_crops(*size, 0, config)), 32)
    _, coarse, fine = _weights(geometry, 32, _n_taps(geometry))
    total = (coarse.sum(-1) + fine.sum(-1) / 2**10) * 2**22
    assert (total - 2**22).abs().max() <= 32  # each weight is rounded to the last of 22 bits
    for part in (coarse, fine):
        mantissa = torch.frexp(part).mantissa * 2**11
        assert torch.equal(mantissa, mantissa.round())


@pytest.mark.parametrize("device, precision", (("cpu", "ieee"), ("cuda", "ieee"), ("cuda", "tf32")))
def test_the_precision_of_products_is_restored_whichever_call_has_set_it(device, precision):
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has no precision by backend")
    kinds = (matmul, torch.backends.mkldnn.matmul)
    start = [kind.fp32_precision for kind in kinds]
    try:
        for set_it in (
            lambda: setattr(matmul, "fp32_precision", "tf32"),
            lambda: torch.set_float32_matmul_precision("high"),
        ):
            set_it()
            before = [kind.fp32_precision for kind in kinds]
            with float32_products(torch.device(device), precision):
                assert kinds[device == "cpu"].fp32_precision == precision
            assert [kind.fp32_precision for kind in kinds] == before
    finally:
        torch.set_float32_matmul_precision("highest")
        for kind, value in zip(kinds, start, strict=True):
            kind.fp32_precision = value


def test_augmix_on_the_device_is_refused(image):
    with pytest.raises(InputError, match="^AUGMIX"):
        on_device(image, 0, ViewConfig(size=32, n_views=2, augmix=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_and_long_images_give_views(size):
    assert make_views(Image.new("RGB", size, "red"), 0, ViewConfig(size=16, n_views=5)).shape == (5, 3, 16, 16)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_views": 0}, "N_VIEWS must be at least 1"),
        ({"scale": (0.0, 1.0)}, "CROP_SCALE"),
        ({"scale": (0.9, 0.2)}, "CROP_SCALE"),
        ({"seed": -1}, "seed of the views"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(InputError, match=message):
        ViewConfig(size=32, **kwargs)
