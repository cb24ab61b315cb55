"""The precision in which encoders compute: chosen by the device, said and recorded."""

import json

import pytest
import torch

from tlla import precision
from tlla.records.record import Record

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_gpu_computes_in_what_is_wanted_and_a_cpu_has_no_fp16():
    wanted = ("auto", "fp32", "fp16", "bf16", "amp")
    assert [precision.choose_precision(name, CUDA) for name in wanted] == ["amp", "fp32", "fp16", "bf16", "amp"]
    assert [precision.choose_precision(name, CPU) for name in wanted] == ["fp32", "fp32", "fp32", "bf16", "fp32"]


@pytest.mark.parametrize(("wanted", "chosen"), (("bf16", "bf16"), ("auto", "fp32")))
def test_a_run_says_and_records_its_precision(place, capfd, wanted, chosen):
    record = place.run("ZeroshotCLIP", chosen, "TRAINER.ZSCLIP.PREC", wanted)
    assert (f"PREC auto: computing in {chosen}" in capfd.readouterr().out) == (wanted == "auto")
    assert (record["precision"], record["method"]["settings"]["PREC"]) == (chosen, chosen)


def test_trainings_that_are_compared_have_one_precision(place):
    runs = [place.run(trainer, trainer, "OPTIM.MAX_EPOCH", "1") for trainer in ("CoOp", "SAPT", "CoCoOp")]
    assert len({run["precision"] for run in runs}) == 1
    assert [run["config"]["TRAINER"][node]["PREC"] for run, node in zip(runs, ("COOP", "SAPT", "COCOOP"), strict=True)]


@pytest.mark.parametrize(
    ("there", "here", "code"), (("amp", "auto", 0), ("fp16", "fp32", 0), ("bf16", "auto", 2)), ids=str
)
def test_a_training_resumes_in_the_precision_in_which_it_began(place, there, here, code):
    """On a CPU older versions computed what was called amp in fp32."""
    import train

    name = f"{there}_{here}"
    place.run("CoOp", name, "OPTIM.MAX_EPOCH", "1", "TRAINER.COOP.PREC", there)
    argv = place.argv("CoOp", name, "OPTIM.MAX_EPOCH", "2", "TRAINER.COOP.PREC", here)
    assert train.main(argv) == code


@pytest.mark.parametrize(
    ("device", "wanted", "entry", "shown"),
    [
        ("cpu", "amp", {}, "fp32"),
        ("cpu", "bf16", {}, "bf16"),
        ("NVIDIA H100", "fp16", {}, "fp16"),
        ("cpu", "auto", {"precision": "bf16"}, "bf16"),
        ("NVIDIA H100", "auto", {"precision": "amp"}, "amp"),
    ],
)
def test_tables_compare_what_was_computed(tmp_path, device, wanted, entry, shown):
    content = {
        "versions": {"device": device},
        "config": {"TRAINER": {"NAME": "SAPT", "SAPT": {"PREC": wanted}}},
        **entry,
    }
    assert Record(tmp_path, json.loads(json.dumps(content))).config["TRAINER"]["SAPT"]["PREC"] == shown
