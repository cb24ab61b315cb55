"""train.py on a backbone of open_clip."""

import json
import math

import pytest
import torch
from benchmark import Workplace
from open_clip_models import TINY

import train


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "vit.json").write_text(json.dumps(TINY))
    return Workplace(folder)


def backbone(workplace, config="vit.json"):
    return f"open_clip:{workplace.folder / config}={workplace.folder / 'clip.pt'}"


def test_training_and_tests_equal_those_with_openais_code(workplace):
    """SAPT, then TLLA on its prompt, in both; also the record, and that a prompt of other weights is refused."""
    for output, more in (("ours", ()), ("theirs", ("--backbone", backbone(workplace)))):
        workplace.run("SAPT", f"{output}/SAPT", *more, "OPTIM.LR", "0.002")  # at 0.1 it grows, and rounding with it
        model_dir = str(workplace.folder / output / "SAPT")
        workplace.run("TLLA", f"{output}/TLLA", *more, "--eval-only", "--model-dir", model_dir)
    moved = workplace.context("ours/SAPT")  # from 0.02 to 0.8
    torch.testing.assert_close(workplace.context("theirs/SAPT"), moved, atol=1e-3, rtol=0)
    columns = [
        [line.split(",")[:3] for line in workplace.predictions(f"{output}/TLLA").splitlines()]
        for output in ("ours", "theirs")
    ]
    assert columns[0] == columns[1]
    record = json.loads((workplace.folder / "theirs/SAPT/results.json").read_text())
    assert record["backbone"] == backbone(workplace)


@pytest.mark.parametrize("trainer", ("CoCoOp", "SAR", "TipAdapter", "TPT"))
def test_all_kinds_of_trainers_accept_it(workplace, trainer):
    short = ("OPTIM.MAX_EPOCH", "1")
    ours = workplace.run(trainer, f"ours/{trainer}", *short)["splits"]["test"]
    theirs = workplace.run(trainer, f"theirs/{trainer}", "--backbone", backbone(workplace), *short)["splits"]["test"]
    assert theirs["nll"] == pytest.approx(ours["nll"], abs=2e-3) and math.isfinite(ours["nll"])


def test_a_config_with_other_pixels_than_the_models_is_refused(workplace, capfd):
    content = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (workplace.folder / "grey.json").write_text(json.dumps(content))
    argv = workplace.argv("ZeroshotCLIP", "grey", "--backbone", backbone(workplace, "grey.json"))
    assert train.main(argv) == 2
    assert 'add INPUT.PIXEL_MEAN "[0.5, 0.5, 0.5]"' in capfd.readouterr().err
    pixels = ("INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]", "INPUT.PIXEL_STD", "[0.5, 0.5, 0.5]")
    nll = {}
    for name, more in (("vit.json", ()), ("grey.json", pixels)):
        for trainer in ("ZeroshotCLIP", "SingleView"):  # by the config's transforms, and by views
            output = f"pixels/{name}/{trainer}"
            record = workplace.run(trainer, output, "--backbone", backbone(workplace, name), *more)
            nll[name, trainer] = record["splits"]["test"]["nll"]
        assert nll[name, "ZeroshotCLIP"] == pytest.approx(nll[name, "SingleView"], abs=1e-5)
    assert nll["vit.json", "ZeroshotCLIP"] != pytest.approx(nll["grey.json", "ZeroshotCLIP"], abs=1e-3)
