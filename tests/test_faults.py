"""Bad input gives one sentence that says what to do, and exit code 2."""

import pytest
from benchmark import Workplace
from hostile import refused


def fails(capfd, argv, code=2):
    """Runs, expects the exit code, returns the one sentence on stderr."""
    return refused(capfd, "train", *argv, code=code)


@pytest.mark.parametrize(
    ("trainer", "more", "parts"),
    [
        ("SATP", (), ("--trainer", "'SATP'", "did you mean 'SAPT'")),
        ("SAPT", ("DATASET.NAME", "Emojis"), ("DATASET.NAME", "'Emojis'", "did you mean 'Emoji'")),
        ("SAPT", ("TRAINER.SAPT.RH0", "0.1"), ("TRAINER.SAPT.RH0", "did you mean 'TRAINER.SAPT.RHO'")),
        ("SAPT", ("OPTIM.LR", "fast"), ("the command line", "OPTIM.LR")),
        ("SAPT", ("--backbone", "ViT-B16"), ("'ViT-B16'", "did you mean 'ViT-B/16'")),
        ("SAPT", ("--config-file", "configs/trainers/SAPT/emojy.yaml"), ("emojy.yaml", "did you mean 'emoji.yaml'")),
        ("SAPT", ("TRAINER.SAPT.RHO", "-0.1"), ("TRAINER.SAPT.RHO must be a finite number >= 0", "-0.1")),
        ("SAPT", ("TRAINER.SAPT.PREC", "int8"), ("TRAINER.SAPT.PREC must be one of", "'int8'")),
        ("SAPT", ("TRAINER.SAPT.N_CTX", "0"), ("TRAINER.SAPT.N_CTX must be at least 1",)),
        ("SAPT", ("TRAINER.SAPT.CLASS_TOKEN_POSITION", "back"), ("CLASS_TOKEN_POSITION must be one of", "'back'")),
        ("SAPT", ("INPUT.SIZE", "(48, 48)"), ("INPUT.SIZE is (48, 48)", 'INPUT.SIZE "(32, 32)"')),
        ("SAPT", ("MODEL.INIT_WEIGHTS", "nowhere.pt"), ("nowhere.pt",)),
        ("TLLA", ("TRAINER.TLLA.N_VIEWS", "0"), ("TRAINER.TLLA.N_VIEWS must be at least 1", "0")),
        (
            "TLLA",
            ("TRAINER.TLLA.TOP_S", "7"),
            ("TRAINER.TLLA.TOP_S must lie between 1 and the number of views, 6", "7"),
        ),
        ("TLLA", ("TRAINER.TLLA.RHO", "-1.0"), ("TRAINER.TLLA.RHO must be a finite number >= 0", "-1")),
        ("TLLA", ("TRAINER.TLLA.VOTE", "median"), ("TRAINER.TLLA.VOTE must be one of", "'median'")),
        ("TLLA", ("--eval-only", "--model-dir", "elsewhere"), ("no checkpoint", "elsewhere")),
        ("ZeroshotCLIP", ("TRAINER.ZSCLIP.TEMPLATE", "an icon"), ("'an icon' has no {}",)),
        ("ZeroshotCLIP", ("--root", "/nowhere"), ("/nowhere/emoji", "index.json")),
    ],
)
def test_wrong_settings_are_named(place, capfd, trainer, more, parts):
    message = fails(capfd, place.argv(trainer, "wrong", *more))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(("trainer", "workers"), (("ZeroshotCLIP", "2"), ("TLLA", "0"), ("TLLA", "2")))
def test_a_corrupt_image_is_named_with_its_index(tmp_path, capfd, trainer, workers):
    place = Workplace(tmp_path)
    bad = tmp_path / "data/emoji/noto/test/1/2.png"
    bad.write_bytes(bad.read_bytes()[:200])
    message = fails(capfd, place.argv(trainer, "corrupt", "--eval-only", "DATALOADER.NUM_WORKERS", workers))
    assert str(bad) in message and "7" in message.replace(str(bad), "")


def test_missing_images_are_counted_and_named(tmp_path, capfd):
    place = Workplace(tmp_path)
    (tmp_path / "data/emoji/noto/val/0/1.png").unlink()
    message = fails(capfd, place.argv("SAPT", "missing"))
    assert "lacks 1 of 12" in message and "noto/val/0/1.png" in message


def test_a_checkpoint_of_other_settings_is_explained(place, capfd):
    place.run("SAPT", "short", "OPTIM.MAX_EPOCH", "1")
    folder = place.folder / "short"
    load = ("--eval-only", "--model-dir", str(folder))
    message = fails(capfd, place.argv("TLLA", "x", *load, "TRAINER.SAPT.N_CTX", "5"))
    assert "N_CTX 3" in message and "N_CTX 5" in message
    assert "class-specific" in fails(capfd, place.argv("TLLA", "x", *load, "TRAINER.SAPT.CSC", "True"))
    assert "only [1]" in fails(capfd, place.argv("TLLA", "x", *load, "--load-epoch", "7"))


def test_a_diverging_run_stops_with_step_rate_rho_and_loss(place, capfd):
    message = fails(capfd, place.argv("SAPT", "diverges", "OPTIM.LR", "1e38"), code=1)
    for part in ("not finite at epoch 2, batch", "loss nan", "lr 1.00e+38", "rho 0.05"):
        assert part in message
