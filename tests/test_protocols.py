"""The authors' protocols, and scripts/reproduce/table1.sh and table2.sh to the end, on stand-ins of the datasets."""

import inspect
import json
import math
import os
import subprocess

import numpy as np
import pytest
import torch
import zoo_trees
from benchmark import REPO
from conftest import TINY_VIT, make_clip
from hostile import fails
from PIL import Image

import train
from sweeps import __main__ as cli
from sweeps import paper_tables, plans, processes
from tlla.methods import METHODS
from tlla.paper import CROSS_DATASET, IMAGENET
from tlla.protocols import CONFIGS, PROTOCOLS

CLASSES = ("n01498041", "n01531178", "n03773504", "n04008634")  # two have the name "missile"; A has two, R three
FEW = {
    **{"INPUT.SIZE": "(32, 32)", "DATALOADER.NUM_WORKERS": "0", "OPTIM.MAX_EPOCH": "1"},
    **dict.fromkeys(("TRAINER.VIEWS.N_VIEWS", "TRAINER.TLLA.N_VIEWS"), "2"),
    **dict.fromkeys(("TRAINER.STSS.TOP_S", "TRAINER.TLLA.TOP_S"), "1"),
    **dict.fromkeys(("TRAINER.STSS.N_PERTURB", "TRAINER.TLLA.N_PERTURB"), "1"),
    **{"TRAINER.TIPADAPTER.AUGMENT_EPOCH": "1"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder of the data, with a tiny CLIP; three images a class, and few classes."""
    root, rng = tmp_path_factory.mktemp("zoo"), np.random.default_rng(0)
    synsets = zoo_trees.synsets

    def touch(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (36, 40, 3), dtype=np.uint8)).save(path, format="png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo_trees, "touch", touch)
        patch.setattr(zoo_trees, "sizes", lambda count: [3] * count)
        patch.setattr(zoo_trees, "synsets", lambda *file: [row for row in synsets(*file) if row[0] in CLASSES])
        zoo_trees.make_trees(root)
    state = make_clip(TINY_VIT).state_dict()
    state["logit_scale"].fill_(math.log(100))
    torch.save(state, root / "clip.pt")
    return root


def arguments(script, tmp_path):
    """What a script hands to python -m sweeps."""
    python = tmp_path / "python"
    python.write_text("#!/bin/bash\n[ $1 = -c ] || printf '%s\n' \"$@\"\n")
    python.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "PYTHON": str(python)}
    out = subprocess.run([str(REPO / script)], env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[:2] == ["-m", "sweeps"]
    return out[2:]


def expected_rows(prompts, *more):
    """The rows of a table: methods on the template, and on CoOp's prompt."""
    return {*more, *prompts["template"], *(f"{name}+CoOp" for name in prompts["CoOp"])}


TRAINED = ("ZeroshotCLIP", "CoOp", "TLLA")


@pytest.mark.parametrize(
    ("name", "benchmark", "rows"),
    [
        (
            "table1",
            IMAGENET,
            expected_rows(paper_tables.TABLE1, *TRAINED, "SAPT", "STSS+CoOp", "CoCoOp", "TipAdapter"),
        ),
        ("table2", CROSS_DATASET, expected_rows(paper_tables.TABLE2, *TRAINED)),
    ],
)
def test_every_row_of_the_tables_is_filled(place, tmp_path, monkeypatch, call, name, benchmark, rows):
    monkeypatch.setattr(cli, "Local", lambda jobs: processes.Here())
    pairs = [word for pair in FEW.items() for word in pair] + ["MODEL.BACKBONE.NAME", str(place / "clip.pt")]
    words = [*arguments(f"scripts/reproduce/{name}.sh", tmp_path), "--seeds", "1", "--data", str(place)]
    planned = cli.make_plan(cli.parse_args(words))[1]
    assert set(benchmark.columns) <= {job.config_values["DATASET"]["NAME"] for job in planned}
    columns = benchmark.columns[:3]  # which alone are run; the others are planned alike
    words += ["--targets", *{"table1": plans.SHIFTED[:2], "table2": plans.TEN[:3]}[name]]
    assert cli.main([*words, "--out", str(tmp_path), "--opts", *pairs]) == 0
    code, out, err = call(tmp_path, "--format", "json")
    found = json.loads(out)
    assert code == 0 and not err and not found["notes"]
    cells = {(cell["method"], cell["dataset"]) for cell in found["cells"] if cell["table"] == benchmark.title}
    assert cells == {(row, column) for row in rows for column in columns}
    assert rows >= set(benchmark.paper) - {"DiffTPT", "DiffTPT+CoOp", "PromptAlign"}  # all of the paper's but these


# The authors' protocols

AUTHORS = ("TRAINER.VIEWS.PROTOCOL", "authors")
ONE = "a photo of a {}."


def argv(method, dataset, *more):
    return ["--trainer", method, "--dataset-config-file", f"configs/datasets/{dataset}.yaml", *more]


@pytest.mark.parametrize("method", PROTOCOLS)
def test_a_protocol_is_that_of_the_commit_that_the_method_follows(method):
    source = PROTOCOLS[method].source
    assert source in inspect.getsource(inspect.getmodule(METHODS[method])) and source in (
        REPO / "docs/protocols.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("method", "dataset", "n_views", "augmix", "template", "own"),
    [
        ("TPT", "imagenet_a", 64, False, ONE, {}),
        ("TPT", "dtd", 64, True, ONE, {}),
        ("ZERO", "eurosat", 64, False, ONE, {"TOP": 0.3}),
        ("MTA", "ucf101", 64, False, ONE, {}),
        ("CTPT", "imagenet", 64, False, ONE, {"LAMBDA": 50}),
        ("CTPT", "imagenetv2", 64, True, ONE, {"LAMBDA": 20}),
        ("CTPT", "food101", 64, True, ONE, {"LAMBDA": 50}),
        ("TPS", "sun397", 64, True, "imagenet80", {}),
        ("VTE", "imagenet_r", 64, False, "imagenet80", {}),
        ("TDA", "imagenet", 1, False, "imagenet7", {"POS_ALPHA": 2, "POS_BETA": 5}),
        ("TDA", "imagenet_sketch", 64, True, "imagenet80", {"POS_ALPHA": 2.363, "POS_BETA": 7.45}),
        ("TDA", "oxford_pets", 1, False, "", {"POS_ALPHA": 2, "POS_BETA": 7}),
        ("DPE", "imagenet", 64, True, "imagenet7", {"ALPHA": 6, "LR": 6e-4, "ALIGN": 0.5}),
        ("DPE", "imagenet_a", 64, True, "imagenet7", {"LR": 3e-4, "PREDICT_ON": "confident"}),
        ("DPE", "stanford_cars", 1, False, ONE, {"ALIGN": 1.5, "PREDICT_ON": "plain"}),
    ],
)
def test_the_authors_protocol_is_what_their_code_does(method, dataset, n_views, augmix, template, own):
    node = train.build_cfg(train.parse_args(argv(method, dataset, *AUTHORS))).TRAINER
    assert (node.VIEWS.N_VIEWS, node.VIEWS.AUGMIX, node.PROMPT.TEMPLATE) == (n_views, augmix, template)
    assert {key: node[method][key] for key in own} == own


def test_what_was_tuned_on_a_dataset_is_there_for_all_datasets():
    for method, protocol in PROTOCOLS.items():
        for dataset in protocol.setups if protocol.tuned else ():
            train.build_cfg(train.parse_args(argv(method, CONFIGS[dataset], *AUTHORS)))


@pytest.mark.parametrize(
    ("method", "dataset", "more", "part"),
    [
        ("TPT", "emoji", (), "no protocol of TPT's authors (azshue/TPT@63ecbac) for Emoji, only for ImageNet, "),
        ("VTE", "dtd", (), "for DescribableTextures, only for ImageNet, ImageNetA, "),
        ("SAR", "dtd", (), "SAR has no authors' protocol, but STSS, TPT, "),
        ("Compare", "dtd", (), "Compare has no authors' protocol, but STSS, TPT, "),
        ("TPT", "dtd", ("TRAINER.VIEWS.AUGMIX", "False"), "TRAINER.VIEWS.AUGMIX is False, but TRAINER.VIEWS.PROTOCOL"),
        ("TDA", "dtd", ("DATASET.TEMPLATE", "a {}"), "DATASET.TEMPLATE is 'a {}', but TRAINER.VIEWS.PROTOCOL authors"),
        ("DPE", "dtd", ("TRAINER.DPE.PREDICT_ON", "confident"), "has 'plain' for DPE on DescribableTextures"),
    ],
)
def test_what_is_not_the_authors_protocol_is_refused(capfd, method, dataset, more, part):
    assert part in fails(capfd, argv(method, dataset, *AUTHORS, *more))


def test_a_config_with_another_value_than_the_authors_is_refused(capfd):
    file = ("--config-file", "configs/trainers/TDA/imagenet_r.yaml")
    assert "TRAINER.TDA.POS_ALPHA is 1.0, but" in fails(capfd, argv("TDA", "dtd", *file, *AUTHORS))
    assert train.build_cfg(train.parse_args(argv("TDA", "imagenet_r", *file, *AUTHORS))).TRAINER.TDA.POS_ALPHA == 1


def test_record_and_table_say_which_protocol(place, tmp_path, call):
    config = tmp_path / "method.yaml"
    config.write_text(f"MODEL: {{BACKBONE: {{NAME: {place}/clip.pt}}}}\nINPUT: {{SIZE: '(32, 32)'}}\n")
    shared = ("--root", str(place), "--seed", "1", "--config-file", str(config), "--output-dir")
    plain = ("DATALOADER.NUM_WORKERS", "0", "TRAINER.VIEWS.N_VIEWS", "2")
    for dataset in ("imagenet_a", "imagenet"):
        for name, more in (("common", plain), ("authors", (*plain[:2], *AUTHORS))):
            out = str(tmp_path / "runs" / dataset / name)
            assert train.main(argv("TDA", dataset, *shared, out, *more)) == 0
    folders = [tmp_path / "runs/imagenet_a" / name for name in ("common", "authors")]
    common, own = (json.loads((folder / "results.json").read_text())["method"] for folder in folders)
    assert common["protocol"] == {"name": "common"} and own["protocol"]["source"] == "kdiAAA/TDA@e697fb0"
    assert own["protocol"]["set"]["TRAINER.PROMPT.TEMPLATE"] == own["template"] == "imagenet7"
    code, out, err = call(tmp_path / "runs", "--format", "csv")
    rows = {(row.split(",")[1], row.split(",")[2]) for row in out.splitlines()[1:]}
    names = ("TDA", "TDA (authors' protocol)")
    assert rows == {(name, dataset) for name in names for dataset in ("ImageNetA", "ImageNet")}
    rest = "CROP_SCALE [0.08, 1.0], TEMPLATE imagenet7, POS_ALPHA 2.0, POS_BETA 5.0"
    for views in ("ImageNetA: N_VIEWS 64, AUGMIX True", "ImageNet: N_VIEWS 1, AUGMIX False"):
        assert f"AUTHORS' PROTOCOL (kdiAAA/TDA@e697fb0): {names[1]} on {views}, {rest}" in err
    assert code == 0 and "NOT COMPARABLE" not in err  # the views differ, as the row says


def test_a_table_by_the_authors_protocols_runs_each_method_by_itself(tmp_path):
    words = ("--seeds", "1", "--out", str(tmp_path), "--protocol", "authors", "--targets")
    jobs = cli.make_plan(cli.parse_args(["table1", *words, "imagenet_a"]))[1]
    own = {job.name: job for job in jobs if "TRAINER.VIEWS.PROTOCOL" in job.opts}
    methods = {*paper_tables.TABLE1["template"], *paper_tables.TABLE1["CoOp"]} - {"SAR"}
    assert set(own) == {f"{name} {dataset} seed 1" for name in methods for dataset in ("imagenet", "imagenet_a")}
    assert all(job.folder.is_relative_to(tmp_path / "evaluation_authors") for job in own.values())
    (together,) = {job.opts for job in jobs if job.trainer == "Compare"}
    assert together == ("TRAINER.COMPARE.METHODS", '["SAR"]')  # nobody has published a protocol of it for CLIP
    jobs = cli.make_plan(cli.parse_args(["table2", *words, "dtd"]))[1]
    found = {job.trainer: job.config_values["TRAINER"]["VIEWS"]["AUGMIX"] for job in jobs}
    assert (found["TPT"], found["ZERO"]) == (True, False) and "Compare" not in found


def test_table_2_has_one_template_for_all_unless_opts_have_another(tmp_path):
    for more, template in (((), ONE), (("--opts", "TRAINER.PROMPT.TEMPLATE", "a {}."), "a {}.")):
        words = ["table2", "--seeds", "1", "--out", str(tmp_path), "--targets", "dtd", *more]
        jobs = [job for job in cli.make_plan(cli.parse_args(words))[1] if job.trainer == "Compare" and not job.source]
        assert [job.config_values["TRAINER"]["PROMPT"]["TEMPLATE"] for job in jobs] == [template]


def test_the_page_has_every_method_and_dataset():
    text = (REPO / "docs/protocols.md").read_text(encoding="utf-8")
    for name, protocol in PROTOCOLS.items():
        assert f"| `{name}` | {protocol.source} |" in text
        assert protocol.lacks in text
    for name in set(METHODS) - set(PROTOCOLS):
        assert f"`{name}`" in text
