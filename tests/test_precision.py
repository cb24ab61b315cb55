"""The precision in which encoders compute: chosen by the device, said and recorded."""

import json

import pytest
import torch

from tlla import precision
from tlla.records.record import Record

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def cpu_info(tmp_path, monkeypatch):
    """Writes what the system says of its CPU."""

    def write(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
        precision._multiplies_in_bf16.cache_clear()

    yield write
    precision._multiplies_in_bf16.cache_clear()


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile\nflags\t\t: fpu\n", "bf16"),
        ("processor : 0\nflags : fpu amx_bf16\n", "bf16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bf16"),
        ("flags\t\t: fpu avx512f avx512_vnni\nvmx flags : avx512_bf16\n", "fp32"),
        ("", "fp32"),
    ],
)
def test_auto_is_bf16_on_a_cpu_with_instructions_for_it(cpu_info, text, chosen):
    cpu_info(text)
    assert precision.choose_precision("auto", CPU) == chosen


def test_auto_is_fp32_where_nothing_is_known_of_the_cpu(cpu_info, tmp_path):
    cpu_info("flags : amx_bf16")
    (tmp_path / "cpuinfo").unlink()
    precision._multiplies_in_bf16.cache_clear()
    assert precision.choose_precision("auto", CPU) == "fp32"


def test_a_gpu_computes_in_what_is_wanted_and_a_cpu_has_no_fp16():
    wanted = ("auto", "fp32", "fp16", "bf16", "amp")
    assert [precision.choose_precision(name, CUDA) for name in wanted] == ["amp", "fp32", "fp16", "bf16", "amp"]
    assert [precision.choose_precision(name, CPU) for name in wanted[1:]] == ["fp32", "fp32", "bf16", "fp32"]


@pytest.mark.parametrize(("info", "chosen"), (("flags : amx_bf16", "bf16"), ("flags : avx2", "fp32")))
def test_a_run_says_and_records_its_precision(place, capfd, cpu_info, info, chosen):
    cpu_info(info)
    record = place.run("ZeroshotCLIP", chosen)
    assert f"PREC auto: computing in {chosen}" in capfd.readouterr().out
    assert (record["precision"], record["method"]["settings"]["PREC"]) == (chosen, chosen)


def test_trainings_that_are_compared_have_one_precision(place):
    runs = [place.run(trainer, trainer, "OPTIM.MAX_EPOCH", "1") for trainer in ("CoOp", "SAPT", "CoCoOp")]
    assert len({run["precision"] for run in runs}) == 1
    assert [run["config"]["TRAINER"][node]["PREC"] for run, node in zip(runs, ("COOP", "SAPT", "COCOOP"), strict=True)]


@pytest.mark.parametrize(
    ("there", "here", "code"), (("amp", "auto", 0), ("fp16", "fp32", 0), ("bf16", "auto", 2)), ids=str
)
def test_a_training_resumes_in_the_precision_in_which_it_began(place, cpu_info, there, here, code):
    """On a CPU older versions computed what was called amp in fp32."""
    import train

    cpu_info("flags : avx2")
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
