"""ImageNet-C's corruptions: each against a derivation of its own, and what a draw depends on."""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image

from tlla.corruptions import Corruption
from tlla.corruptions.fifteen import FIFTEEN
from tlla.corruptions.filters import magnify, plasma, sample, smooth, streak
from tlla.errors import InputError

NAMES = "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog".split()
WITHOUT_DRAWS = "defocus_blur zoom_blur brightness contrast pixelate jpeg_compression".split()
NAMES += "brightness contrast elastic_transform pixelate jpeg_compression".split()


@pytest.fixture(scope="module")
def small():
    """A picture of 24 x 20 with smooth and rough parts, in 0..1."""
    rows, columns = np.mgrid[:24, :20] / 24
    x = np.stack([rows, columns, np.sin(7 * rows * columns)], axis=-1)
    x[::3, ::4] = np.random.default_rng(0).random((8, 5, 3))
    return (x.clip(0, 1) * 255).astype(np.uint8) / 255


def drawn(name, x, severity=3, unit=1.0, seed=0):
    function, settings = FIFTEEN[name]
    return function(x, settings[severity - 1], np.random.default_rng(seed), unit)


def test_they_are_imagenet_cs_in_five_severities():
    assert list(FIFTEEN) == NAMES and all(len(settings) == 5 for _, settings in FIFTEEN.values())


def test_noise_has_the_mean_and_the_variance_of_its_definition():
    x = np.full((150, 150, 3), 0.4)
    for name, severity, variance in (("gaussian_noise", 2, 0.12**2), ("shot_noise", 1, 0.4 / 60)):
        noisy = drawn(name, x, severity)
        assert noisy.mean() == pytest.approx(0.4, abs=4 * math.sqrt(variance / x.size))
        assert noisy.var() == pytest.approx(variance, rel=0.05)
    noisy = drawn("impulse_noise", x, 5)
    assert {0.0, 0.4, 1.0} == set(np.unique(noisy).round(3))
    assert [(noisy == value).mean() for value in (0, 1)] == pytest.approx([0.135, 0.135], abs=0.01)


def test_filters_are_scipys(small):
    ndimage = pytest.importorskip("scipy.ndimage")
    for border, mode in (("edge", "nearest"), ("symmetric", "reflect")):
        expected = ndimage.gaussian_filter(small, (1.3, 1.3, 0), mode=mode, truncate=3)
        np.testing.assert_allclose(smooth(small, 1.3, 3, border), expected, atol=1e-12)
    rng = np.random.default_rng(1)
    rows, columns = rng.uniform(-30, 50, (2, 9, 7))
    for border, mode in (("reflect", "mirror"), ("symmetric", "reflect")):
        expected = [ndimage.map_coordinates(small[..., c], (rows, columns), order=1, mode=mode) for c in range(3)]
        np.testing.assert_allclose(sample(small, rows, columns, border), np.stack(expected, axis=-1), atol=1e-12)
    part = small[:20, :, :]  # 20 x 20: the middle 14 of it become 21, of which 20 are kept
    expected = ndimage.zoom(part[3:17, 3:17], (1.5, 1.5, 1), order=1, mode="nearest")[:20, :20]
    np.testing.assert_allclose(magnify(part, 1.5), expected, atol=1e-12)


def test_defocus_is_a_disk_of_the_radius(small):
    spot = np.zeros((41, 41, 3))
    spot[20, 20] = 1
    disk = drawn("defocus_blur", spot, 3)[..., 0]  # of radius 6, its rim smoothed by one pixel
    assert disk.sum() == pytest.approx(1) and np.ptp(disk[16:25, 18:23]) < 1e-12
    distance = np.hypot(*np.mgrid[-20:21, -20:21])
    assert (disk[distance > 7.5] < 1e-12).all() and disk[20, 20] == pytest.approx(1 / (distance <= 6).sum())
    assert np.allclose(drawn("defocus_blur", np.full((9, 9, 3), 0.3)), 0.3)


def test_a_streak_is_half_a_gaussian_along_a_line(small):
    weights = [math.exp(-0.5 * (i / 2.0) ** 2) for i in range(7)]
    expected = np.zeros_like(small)
    for r in range(24):
        for c in range(20):
            for i, weight in enumerate(weights):
                down = math.ceil(i * math.sin(math.radians(-30)) - 0.5)
                right = math.ceil(i * math.cos(math.radians(-30)) - 0.5)
                expected[r, c] += weight * small[min(max(r + down, 0), 23), min(c + right, 19)]
    np.testing.assert_allclose(streak(small, 3, 2.0, -30.0), expected / sum(weights), atol=1e-12)


def test_glass_copies_neighbours_one_after_the_other(small):
    expected = (smooth(small, 1.1) * 255).astype(np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(2):
        for h in range(24 - 3, 3, -1):
            for w in range(20 - 3, 3, -1):
                dx, dy = rng.integers(-3, 3, 2)
                expected[h, w] = expected[h + dy, w + dx]
    np.testing.assert_allclose(drawn("glass_blur", small, 4), smooth(expected / 255, 1.1), atol=1e-12)


def test_zoom_is_the_mean_of_magnified_pictures(small):
    expected = (small + sum(magnify(small, 1 + 0.02 * i) for i in range(11))) / 12
    np.testing.assert_allclose(drawn("zoom_blur", small, 3), expected, atol=1e-9)


def test_plasma_is_midpoint_displacement(small):
    rng, field, side, spread = np.random.default_rng(5), np.zeros((8, 8)), 8, 100.0
    while side > 1:
        half = side // 2
        starts = range(0, 8, side)

        def noise(starts=starts, spread=spread):
            return iter(spread * rng.uniform(-spread, spread, len(starts) ** 2))

        def at(r, c):
            return field[r % 8, c % 8]

        more = noise()
        for r in starts:
            for c in starts:
                corners = at(r, c) + at(r + side, c) + at(r, c + side) + at(r + side, c + side)
                field[r + half, c + half] = corners / 4 + next(more)
        more = noise()
        for r in starts:
            for c in starts:
                around = at(r, c) + at(r, c + side) + at(r - half, c + half) + at(r + half, c + half)
                field[r, c + half] = around / 4 + next(more)
        more = noise()
        for r in starts:
            for c in starts:
                around = at(r, c) + at(r + side, c) + at(r + half, c - half) + at(r + half, c + half)
                field[r + half, c] = around / 4 + next(more)
        side, spread = half, spread / 2.0
    field = (field - field.min()) / (field - field.min()).max()
    np.testing.assert_allclose(plasma(7, 8, 2.0, np.random.default_rng(5)), field[:7], atol=1e-9)
    fog = drawn("fog", small, 2)  # 2 parts of clouds; white stays white
    clouds = plasma(24, 20, 2, np.random.default_rng(0))[..., None]
    np.testing.assert_allclose(fog, (small + 2 * clouds) / (1 + 2 / small.max()), atol=1e-12)


def test_snow_and_frost_only_lighten_or_cover(small):
    grey = np.full((60, 60, 3), 0.2)
    bleached = 0.7 * 0.2 + 0.3 * 0.8  # where no flake falls: 1.5 times the grey value, and a half
    snow = drawn("snow", grey, 3)
    assert snow.min() == pytest.approx(bleached) and snow.mean() > bleached + 0.05
    frost = drawn("frost", grey, 5) - 0.6 * grey
    assert frost.min() > 0 and 0.35 < frost.mean() / 0.75 < 0.85  # photographs of frost have means of 0.35 to 0.8


def test_brightness_raises_hsvs_value_and_contrast_nears_the_mean(small):
    bright = drawn("brightness", small, 2)
    for place in ((0, 0), (3, 4), (11, 7), (23, 19)):
        h, s, v = colorsys.rgb_to_hsv(*small[place])
        assert bright[place] == pytest.approx(colorsys.hsv_to_rgb(h, s, min(v + 0.2, 1)))
    assert drawn("brightness", np.zeros((1, 1, 3)), 2) == pytest.approx(0.2)
    flat = drawn("contrast", small, 4)
    np.testing.assert_allclose(flat.mean(axis=(0, 1)), small.mean(axis=(0, 1)))
    np.testing.assert_allclose(flat.std(axis=(0, 1)), 0.1 * small.std(axis=(0, 1)))


def test_elastic_bends_the_picture_along_smooth_waves(small):
    ndimage = pytest.importorskip("scipy.ndimage")
    x, rng = np.stack([small[:20, :, 0]] * 3, axis=-1), np.random.default_rng(0)
    strength, sigma, corner = 12.2, 2.44, 4.88
    before = np.array([[16, 16], [16, 4], [4, 4]], float)  # column, row
    after = before + rng.uniform(-corner, corner, (3, 2))
    inverse = np.linalg.inv(np.vstack([after.T, np.ones(3)]).T)
    rows, columns = np.mgrid[:20, :20].astype(float)
    (a, d), (b, e), (c, f) = inverse @ before
    places = d * columns + e * rows + f, a * columns + b * rows + c
    bent = ndimage.map_coordinates(x[..., 0], places, order=1, mode="mirror")
    waves = [
        strength * ndimage.gaussian_filter(rng.uniform(-1, 1, (20, 20)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    ]
    expected = ndimage.map_coordinates(bent, (rows + waves[1], columns + waves[0]), order=1, mode="reflect")
    np.testing.assert_allclose(drawn("elastic_transform", x, 3)[..., 1], expected, atol=1e-9)


def test_pixelate_and_jpeg_are_pillows(small):
    image = Image.fromarray((small * 255).round().astype(np.uint8))
    coarse = drawn("pixelate", small[:20], 2)  # blocks of 2 x 2
    assert np.array_equal(coarse[::2], coarse[1::2]) and np.array_equal(coarse[:, ::2], coarse[:, 1::2])
    np.testing.assert_allclose(coarse[::2, ::2], small[:20].reshape(10, 2, 10, 2, 3).mean(axis=(1, 3)), atol=2 / 255)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=15)
    assert np.array_equal(drawn("jpeg_compression", small, 3) * 255, np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_depends_on_the_image_and_the_seed_alone_and_grows_with_the_severity(name, small):
    photo = Image.fromarray((small * 255).astype(np.uint8)).resize((300, 260), Image.Resampling.BICUBIC)
    plain = photo.resize((295, 256), Image.Resampling.BILINEAR).crop((36, 16, 260, 240))
    least = 3 if name == "elastic_transform" else 1  # whose first two bend the picture as a whole
    mild, strong = (Corruption(name, severity).draw(photo, 1, 7) for severity in (least, 5))
    assert mild.size == strong.size == (224, 224) and mild.mode == "RGB"
    changes = [np.abs(np.asarray(found, float) - np.asarray(plain)).mean() for found in (mild, strong)]
    assert 0.3 < changes[0] < changes[1]
    for size in ((48, 40), (5, 3)):  # pictures below 224 keep their size
        picture = photo.resize(size)
        found = Corruption(name, 5).draw(picture, 1, 7)
        assert found.size == size
        np.random.random()  # NumPy's global generator has no part in it
        assert np.array_equal(found, Corruption(name, 5).draw(picture, 1, 7))
        others = [np.array_equal(found, Corruption(name, 5).draw(picture, *key)) for key in ((1, 8), (2, 7))]
        assert size == (5, 3) or all(others) == any(others) == (name in WITHOUT_DRAWS)


def test_what_is_none_of_them_is_refused():
    with pytest.raises(InputError, match="DATASET.CORRUPTION must be one of .*, but got 'rain'"):
        Corruption("rain", 1)
    for severity in (0, 6):
        with pytest.raises(InputError, match=f"CORRUPTION fog needs a DATASET.SEVERITY of 1 to 5, but got {severity}"):
            Corruption("fog", severity)
