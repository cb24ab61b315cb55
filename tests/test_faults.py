"""Bad input gives one sentence and exit code 2; a killed run goes on as if nothing had happened."""

import json
import signal
import time

import pytest
import torch
from benchmark import Workplace
from test_clip import RunsCode

import train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("work"))


def fails(capfd, argv, code=2):
    """Runs, expects the exit code, returns the one line on stderr."""
    capfd.readouterr()
    assert train.main(argv) == code
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


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


def test_a_config_that_is_python_or_broken_yaml_is_refused(place, capfd, tmp_path):
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "broken.yaml").write_text("TRAINER: [")
    (tmp_path / "object.yaml").write_text("OUTPUT_DIR: !!python/object/apply:os.getcwd []")
    for name, part in (
        ("code.py", "must be YAML"),
        ("broken.yaml", "cannot be read as YAML"),
        ("object.yaml", "cannot be"),
    ):
        assert part in fails(capfd, place.argv("SAPT", "wrong", "--config-file", str(tmp_path / name)))


def test_a_class_name_that_is_too_long_is_named(tmp_path, capfd):
    place = Workplace(tmp_path, classes=("bird", "very " * 80 + "long"))
    message = fails(capfd, place.argv("SAPT", "long"))
    assert "very very" in message and "the text encoder accepts 77" in message


@pytest.mark.parametrize("workers", ("0", "2"))
@pytest.mark.parametrize("trainer", ("ZeroshotCLIP", "TLLA"))
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


def test_a_wrong_checkpoint_is_explained(place, capfd, tmp_path):
    place.run("SAPT", "short", "OPTIM.MAX_EPOCH", "1")
    folder = place.folder / "short"
    load = ("--eval-only", "--model-dir", str(folder))
    message = fails(capfd, place.argv("TLLA", "x", *load, "TRAINER.SAPT.N_CTX", "5"))
    assert "N_CTX 3" in message and "N_CTX 5" in message
    assert "class-specific" in fails(capfd, place.argv("TLLA", "x", *load, "TRAINER.SAPT.CSC", "True"))
    assert "only [1]" in fails(capfd, place.argv("TLLA", "x", *load, "--load-epoch", "7"))
    file = folder / "prompt_learner/model.pth.tar-1"
    file.write_bytes(file.read_bytes()[:500])
    assert "may be truncated" in fails(capfd, place.argv("TLLA", "x", *load))
    torch.save({"state_dict": RunsCode(tmp_path / "hacked")}, file)
    assert "is refused" in fails(capfd, place.argv("TLLA", "x", *load))
    assert not (tmp_path / "hacked").exists()


def test_a_diverging_run_stops_with_step_rate_rho_and_loss(place, capfd):
    message = fails(capfd, place.argv("SAPT", "diverges", "OPTIM.LR", "1e38"), code=1)
    for part in ("not finite at epoch 2, batch", "loss nan", "lr 1.00e+38", "rho 0.05"):
        assert part in message


def wait_for(condition, process, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None and time.time() < end, process.stderr.read()
        time.sleep(0.002)


def test_a_run_killed_at_any_moment_resumes_to_the_same_prompt(tmp_path):
    """Kills one run five times: before, between and right at checkpoints; then lets it finish."""
    place = Workplace(tmp_path)
    epochs = ("OPTIM.MAX_EPOCH", "12")
    place.run("SAPT", "whole", *epochs)
    folder = place.folder / "killed"
    reached = []
    for epoch, delay in ((None, 0.0), (2, 0.0), (4, 0.003), (6, 0.02), (8, 0.0)):
        process = place.start("SAPT", "killed", *epochs)
        newest = folder / f"prompt_learner/model.pth.tar-{epoch}"
        wait_for((folder / "tensorboard").exists if epoch is None else newest.exists, process)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        reached.append(sorted(p.name for p in folder.rglob("model.pth.tar-*")))
    assert not (folder / "results.json").exists() and reached[-1]
    process = place.start("SAPT", "killed", *epochs)
    assert process.wait() == 0, process.stderr.read()
    assert torch.equal(place.context("killed", 12), place.context("whole", 12))
    assert place.predictions("killed") == place.predictions("whole")
    log = (folder / "log.txt").read_text()
    assert "epoch [1/12]" not in log and "epoch [12/12]" in log  # it went on, it did not start over
    assert json.loads((folder / "results.json").read_text())["splits"]["test"]["total"] == 15
