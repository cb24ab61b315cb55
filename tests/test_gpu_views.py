"""Views that are made on the GPU are Pillow's; a batch of views that does not fit into memory is halved."""

import numpy as np
import pytest
import torch
from conftest import make_clip
from gpu import has_tf32, matmul_flag, set_tf32
from PIL import Image
from test_views import SIZES, on_device, rows_first

from tlla.backbones import as_backbone
from tlla.clip import encode_images, normalize
from tlla.views.encode import ViewEncoder
from tlla.views.make import ViewConfig, make_views

pytestmark = pytest.mark.gpu
dry = pytest.mark.gpu(dry=True)

FINE_VIT = (256, 64, 4, 256, 4, 77, 49408, 64, 1, 1)  # 257 tokens an image


def picture(size, smooth):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise[:9, :12]).resize(size, Image.Resampling.BICUBIC) if smooth else Image.fromarray(noise)


@pytest.mark.parametrize("size", [pytest.param(size, marks=dry) if size == (31, 97) else size for size in SIZES])
def test_small_views_are_pillows_bit_by_bit(device, size):
    image, config = picture(size, smooth=False), ViewConfig(size=32, n_views=13, seed=3)
    assert torch.equal(on_device(image, 4, config, device).cpu(), rows_first(image, 4, config))


@pytest.mark.parametrize("smooth", (True, False))
@pytest.mark.parametrize("size", ((500, 375), (3000, 2000)))
def test_64_views_of_a_photograph_are_pillows(device, size, smooth):
    image, config = picture(size, smooth), ViewConfig(size=224, n_views=64, seed=1)
    views = on_device(image, 2, config, device).cpu()
    assert torch.equal(views, rows_first(image, 2, config))
    difference = (views.int() - make_views(image, 2, config).int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.1


@dry
@pytest.mark.parametrize("tf32", (False, True))
def test_views_on_the_device_change_no_later_product(device, tf32):
    """Whichever of torch's two ways has set the precision."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator).to(device) for _ in range(2))
    image, config = picture((60, 45), smooth=True), ViewConfig(size=32, n_views=5)
    expected = rows_first(image, 0, config)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    for set_it in (lambda: None, lambda: set_tf32(tf32)):
        set_it()
        product, (where, name) = a @ b, matmul_flag()
        precision = getattr(where, name)
        assert torch.equal(on_device(image, 0, config, device).cpu(), expected)
        assert torch.equal(a @ b, product) and getattr(where, name) == precision
    exact = a.double() @ b.double()
    error = (a @ b - exact).abs().max().item()
    assert (error > 1e-3) == (tf32 and has_tf32(device))


def test_without_memory_fewer_views_are_encoded_at_once(card):
    clip_model = as_backbone(make_clip(FINE_VIT)).to(card)
    views = torch.randint(256, (8, 256, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = normalize(views.to(card), clip_model)
    expected = torch.cat([encode_images(clip_model, image) for image in pixels])  # 256 at once

    def reserved_by(at_once):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        ViewEncoder(clip_model, at_once)(views)
        return torch.cuda.max_memory_reserved()

    needed, enough, told = reserved_by(2048), reserved_by(512), []
    assert needed > 2 * enough
    encoder = ViewEncoder(clip_model, 2048, tell=told.append)
    torch.cuda.empty_cache()
    allocated = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction((needed + enough) / 2 / torch.cuda.mem_get_info()[1])
    try:
        found = encoder(views)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 512 <= encoder.at_once < 2048 and f"continuing with {encoder.at_once} views" in told[-1]
    torch.testing.assert_close(found.flatten(0, 1), expected, atol=1e-5, rtol=0)
    del found
    assert torch.cuda.memory_allocated() == allocated  # the error has kept nothing alive
    assert reserved_by(2048) < 1.1 * needed  # the limit is gone
