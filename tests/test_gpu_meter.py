"""What is measured on a GPU: time that includes its work, peaks of nested meters, memory that does not grow."""

import pytest
import torch
from conftest import CLASSNAMES
from gpu import harness, low

from tlla.clip import load_clip
from tlla.methods import METHODS
from tlla.prompts.classifier import from_templates
from tlla.views.encode import ViewEncoder

pytestmark = pytest.mark.gpu

MB = 10**6


def allocate(megabytes, device):
    torch.ones(megabytes * MB // 4, device=device)  # freed at once


def test_an_outer_meter_keeps_its_peak_around_an_inner_one(device):
    outer, inner = (harness("entries").Meter(device) for _ in range(2))
    with outer:
        allocate(400, device)
        with inner:
            allocate(100, device)
    with inner:
        pass
    assert outer.peak_mb >= 400
    assert 100 <= inner.peak_mb < outer.peak_mb - 200
    assert outer.lap() > 0


def test_a_meters_time_includes_the_gpus_work(card):
    meter, start, end = harness("entries").Meter(card), *(torch.cuda.Event(enable_timing=True) for _ in range(2))
    with meter:
        start.record()
        torch.cuda._sleep(10**8)  # clock cycles: about 50 ms
        end.record()
    end.synchronize()
    assert meter.lap() >= start.elapsed_time(end) / 1000 > 0.01


@pytest.mark.parametrize("name", ("STSS", "TPT", "SAR"))
def test_memory_does_not_grow_from_batch_to_batch(card, name):
    clip_model = load_clip("EmojiCLIP", card)
    method, used = METHODS[name](), []
    encode = ViewEncoder(clip_model, 64, lambda: torch.autocast("cuda", low(card)))
    views = torch.randint(256, (4, 16, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        method.start(from_templates(clip_model, CLASSNAMES, "a photo of a {}."), seed=0)
        for _ in range(30):
            method.predict(encode(views), encode.pixels(views) if method.needs_images else None)
            used.append(torch.cuda.memory_allocated())
    assert used[0] > 0 and used[2] == used[-1]
