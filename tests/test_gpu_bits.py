"""A run repeats and resumes to the last bit, and does not depend on how images reach the GPU."""

from unittest import mock

import pytest
import torch
from dassl.engine import SimpleTrainer
from gpu import harness, place_of
from torch.utils.data import DataLoader

import train

pytestmark = pytest.mark.gpu

PREC = ("TRAINER.SAPT.PREC", "amp", "OPTIM.MAX_EPOCH", "2", "OPTIM.LR", "0.01", "TRAIN.CHECKPOINT_FREQ", "1")
ONE_BY_ONE = ("TRAINER.TLLA.VIEW_BATCH", "6", "TEST.SAVE_EVERY", "0.0")
EMOJI = ("--backbone", "EmojiCLIP", "INPUT.SIZE", "(64, 64)")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return place_of(tmp_path_factory)


def settings(place, backbone):
    return EMOJI if backbone == "EmojiCLIP" else place.with_backbone(backbone)


def interrupted(place, target, name, after, *args):
    """Runs until `name` was called so often, as if by Ctrl-C."""
    function, calls = getattr(target, name), []

    def stops(*args, **kwargs):
        function(*args, **kwargs)
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt

    with mock.patch.object(target, name, stops):
        assert train.main(place.argv(*args)) == 130


@pytest.mark.parametrize("backbone", ("wide", "EmojiCLIP"))
def test_training_and_test_repeat_and_resume_to_the_bit(place, device, backbone, capsys):
    more = (*settings(place, backbone), *PREC)
    name = f"{backbone}-straight"
    place.run("SAPT", name, *more)
    place.run("SAPT", f"{backbone}-again", *more)
    interrupted(place, SimpleTrainer, "after_epoch", 1, "SAPT", f"{backbone}-cut", *more)
    place.run("SAPT", f"{backbone}-cut", *more)
    context = place.context(name, 2)
    assert context.isfinite().all() and not torch.equal(context, place.context(name, 1))
    for other in ("again", "cut"):
        assert torch.equal(place.context(f"{backbone}-{other}", 2), context), other

    more = ("--eval-only", "--model-dir", str(place.folder / name), *more, *ONE_BY_ONE)
    expected = place.tested("TLLA", f"{backbone}-tested", *more)
    other = place.tested("TLLA", f"{backbone}-other", *more, "TRAINER.TLLA.SEED", "7")
    assert not torch.equal(expected["confidence"], other["confidence"])
    found = [place.tested("TLLA", f"{backbone}-repeated", *more)]
    partial = harness("partial_results").PartialResults
    interrupted(place, partial, "add", 5, "TLLA", f"{backbone}-killed", *more)
    capsys.readouterr()
    found.append(place.tested("TLLA", f"{backbone}-killed", *more))
    assert "Going on after 5 of 15 images" in capsys.readouterr().out
    for columns in found:
        assert columns.keys() == expected.keys()
        assert all(torch.equal(columns[key], values) for key, values in expected.items())


@pytest.fixture(scope="module")
def by_no_worker(place):
    return place.tested("STSS", "none", *place.with_backbone("ViT"))


@pytest.mark.parametrize("how", ("2 workers", "not pinned", "on the device"))
def test_predictions_do_not_depend_on_how_images_reach_the_gpu(place, device, monkeypatch, by_no_worker, how):
    more = place.with_backbone("ViT")
    if how == "2 workers":
        more += ("DATALOADER.NUM_WORKERS", "2")
    if how == "on the device":
        more += ("TRAINER.VIEWS.ON_DEVICE", "True")
    if how == "not pinned":
        batches = harness("batches")
        loader = batches.DataLoader
        monkeypatch.setattr(batches, "DataLoader", lambda *a, **k: loader(*a, **{**k, "pin_memory": False}))
    found = place.tested("STSS", how, *more)
    if how != "on the device":
        assert all(torch.equal(found[key], values) for key, values in by_no_worker.items())
        return
    # Pillow 13 resizes some crops in another order, by which a pixel may differ by a grey level.
    torch.testing.assert_close(found["confidence"], by_no_worker["confidence"], atol=0.02, rtol=0)
    torch.testing.assert_close(found["nll"], by_no_worker["nll"], atol=0.05, rtol=0)


@pytest.mark.parametrize("on_device", (False, True))
@pytest.mark.parametrize("workers", (0, 1))
def test_pinning_keeps_values_and_layout_of_a_batch(place, card, workers, on_device):
    """Of a batch with an image that cannot be read."""
    batches = harness("batches")
    trainer = place.built("STSS", "pinned", *place.with_backbone("ViT"), "TRAINER.VIEWS.ON_DEVICE", str(on_device))
    dataset = trainer.tester.dataset("test")
    items = [dataset[0], (1, "it is broken"), dataset[2]]

    def loaded(pin):
        (batch,) = DataLoader(items, 3, pin_memory=pin, num_workers=workers, collate_fn=batches.collate)
        return batch

    (batch, bad), (expected, _) = loaded(True), loaded(False)
    assert [tuple(row) for row in bad] == [(1, "it is broken")] and batch.keys() == expected.keys()
    for image, plain in zip(batch["img"], expected["img"], strict=True):
        assert image.is_pinned() and image.dtype == torch.uint8 and torch.equal(image, plain)
        assert image.stride() == plain.stride()
    assert batch["label"].is_pinned() and torch.equal(batch["index"], expected["index"])
