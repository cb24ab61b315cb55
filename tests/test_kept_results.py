"""What is kept of a run is taken up only by the same run: other images, classes, weights or code begin anew.

tests/test_testtime_matrix.py replaces images for every trainer; here is the rest of what a result depends on.
"""

import importlib
import os
import shutil

import pytest
import torch
from benchmark import CLASSES, Workplace
from conftest import TINY_RESNET, TINY_VIT, make_clip
from dassl.engine import TRAINER_REGISTRY
from PIL import Image
from test_evaluation import images_encoded, interrupt_after

import train
from report.commands.settings.bank import view_bank
from report.reopen import open_run
from tlla import fingerprint
from tlla.backbones import as_backbone
from tlla.errors import InputError
from tlla.fingerprint import are_weights, files_sha256, tensor_sha256, weights_sha256
from tlla.predict import command as predict
from tlla.predict.predictor import Predictor
from tlla.prompts.classifier import from_templates
from tlla.prompts.info import PromptInfo
from tlla.prompts.learner import PromptLearner
from tlla.records.record import read_record


@pytest.mark.parametrize(("arch", "every"), ((TINY_VIT, 1), (TINY_RESNET, 5)), ids=("ViT", "ResNet"))
def test_clips_that_differ_in_one_number_of_any_weight_are_told_apart(arch, every):
    model = make_clip((*arch[:6], 50, *arch[7:]))  # words
    before = [weights_sha256(model), weights_sha256(model, exact=True)]
    for weight in list(as_backbone(model).named_weights().values())[::every]:
        first = weight.view(-1)[:1]
        kept = first.clone()
        first.add_(1)
        assert weights_sha256(model) != before[0] and weights_sha256(model, exact=True) != before[1]
        first.copy_(kept)
    assert [weights_sha256(model), weights_sha256(model, exact=True)] == before
    as_backbone(model).to_half()
    assert weights_sha256(model) == before[0] and weights_sha256(model, exact=True) != before[1]


def test_the_fingerprint_of_a_clip_is_computed_once_until_a_weight_changes(monkeypatch):
    model, weight, computed = make_clip((*TINY_VIT[:6], 50, *TINY_VIT[7:])), fingerprint._weight, []
    monkeypatch.setattr(fingerprint, "_weight", lambda *args: computed.append(args) or weight(*args))
    number = len(as_backbone(model).named_weights())
    found = [weights_sha256(model, exact) for exact in (False, True, False, True)]
    assert found[:2] == found[2:] and found[0] != found[1] and len(computed) == 2 * number
    with torch.no_grad():
        model.ln_final.weight[0] += 1
    assert weights_sha256(model) != found[0] and weights_sha256(model, exact=True) != found[1]
    model.ln_final.weight = torch.nn.Parameter(torch.ones(64))  # as make_clip began
    assert [weights_sha256(model, exact) for exact in (False, True)] == found[:2]


def test_a_prompt_is_not_for_a_clip_that_shares_the_text_projection_alone():
    own, other = make_clip(TINY_VIT), make_clip(TINY_VIT)
    other.visual.proj.data.add_(1)
    learner, elsewhere = (PromptLearner(model, list(CLASSES)) for model in (own, other))
    info = PromptInfo.of(learner, "ViT")
    info.check_fits("the prompt", learner)
    with pytest.raises(InputError, match="was learned for the backbone 'ViT', but the CLIP in use has other weights"):
        info.check_fits("the prompt", elsewhere)


def test_a_prompt_of_an_earlier_version_is_known_by_the_text_projection():
    model = make_clip(TINY_VIT)
    old = tensor_sha256(model.text_projection.half())
    assert are_weights(old, model) and not are_weights(old, make_clip(TINY_VIT, seed=1))
    PromptInfo(("cat",), "ViT", old).check_fits("the prompt", PromptLearner(model, ["cat"]))


@pytest.mark.parametrize(
    ("names", "template"),
    [(["cat", "dog"], "a photo of a {}."), (["dog", "cow"], "a photo of a {}."), (["dog", "cat"], "a photo of a {}!")],
    ids=("order", "name", "suffix"),
)
def test_text_sides_of_one_context_are_told_apart(tiny_clip, names, template):
    one, other = (
        from_templates(tiny_clip, ["dog", "cat"], "a photo of a {}."),
        from_templates(tiny_clip, names, template),
    )
    assert torch.equal(one.fingerprint(), other.fingerprint()) and one.identity() != other.identity()


def test_a_file_is_told_by_its_size_and_its_time(tmp_path):
    path = tmp_path / "x"
    assert files_sha256([path]) == files_sha256([tmp_path / "y"])
    path.write_text("a")
    os.utime(path, ns=(1, 1))
    before = files_sha256([path])
    os.utime(path, ns=(1, 2))
    later = files_sha256([path])
    path.write_text("ab")
    os.utime(path, ns=(1, 1))
    assert len({before, later, files_sha256([path])}) == 3


@pytest.fixture
def own(tmp_path):
    """A folder of one's own images, and the command that tests ZERO on it."""
    place = Workplace(tmp_path)
    for label, name in enumerate(CLASSES):
        shutil.copytree(tmp_path / f"data/emoji/noto/test/{label}", tmp_path / "own/test" / name)
    argv = place.argv("ZERO", "zero", "TRAINER.VIEWS.VIEW_BATCH", "6", dataset="image_folder")
    argv[argv.index("--root") + 1] = str(tmp_path / "own")
    return place, argv


def name_classes(place, monkeypatch):
    (place.folder / "own/classnames.txt").write_text("bird\tairplane\n")


def replace_weights(place, monkeypatch):
    state = torch.load(place.folder / "clip.pt")
    state["visual.proj"] += 1
    torch.save(state, place.folder / "clip.pt")


def update_a_package(place, monkeypatch):
    package = TRAINER_REGISTRY.get("ZERO").__module__.rpartition(".")[0]
    module = importlib.import_module(f"{package}.harness.describe_run")
    found = module.versions()
    monkeypatch.setattr(module, "versions", lambda **_: found | {"pillow": "0.1"})


def edit_the_code(place, monkeypatch):
    package = TRAINER_REGISTRY.get("ZERO").__module__.rpartition(".")[0]
    module = importlib.import_module(f"{package}.harness.image_test")
    monkeypatch.setattr(module, "source_sha256", lambda *folders: "of another commit")


def replace_an_image(place, monkeypatch):
    path = place.folder / "own/test/bird/0.png"
    Image.open(path).rotate(90).save(path)


CHANGES = (name_classes, replace_weights, update_a_package, edit_the_code, replace_an_image)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_cut_test_does_not_go_on_after_a_change(own, monkeypatch, capsys, change):
    place, argv = own
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert train.main(argv) == 130
    change(place, monkeypatch)
    assert train.main(argv) == 0
    assert "Resuming" not in capsys.readouterr().out
    resumed = place.predictions("zero")
    shutil.rmtree(place.folder / "zero")
    assert train.main(argv) == 0 and place.predictions("zero") == resumed


def test_a_bad_image_that_was_mended_meanwhile_is_not_skipped(own, monkeypatch):
    place, argv = own
    path = place.folder / "own/test/bird/0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    argv += ["TEST.SKIP_BAD_IMAGES", "True"]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert train.main(argv) == 130
    path.write_bytes(whole)
    assert train.main(argv) == 0
    assert len(place.predictions("zero").splitlines()) == 1 + 15


def test_fresh_leaves_nothing_that_a_later_run_would_take_up(own, monkeypatch, capsys):
    place, argv = own
    for flags, stop in (([], 7), (["--fresh"], 5)):
        with monkeypatch.context() as patch:
            interrupt_after(patch, stop)
            assert train.main([*argv[:-2], *flags, *argv[-2:]]) == 130
    assert train.main(argv) == 0
    assert "Resuming after 5 of 15 images" in capsys.readouterr().out


def stop_after_a_batch(self, *args, **kwargs):
    yield next(iter(BATCHES(self, *args, **kwargs)))
    raise KeyboardInterrupt


BATCHES = Predictor.batches


@pytest.mark.parametrize("change", ("image", "suffix", "drawings"))
def test_rows_of_a_stopped_predict_are_not_taken_after_a_change(own, monkeypatch, capsys, change):
    place, _ = own
    images = place.folder / "own/test"
    argv = [str(images), "--classes-from", str(images), "--backbone", str(place.folder / "clip.pt"), "--views", "3"]
    argv += ["--batch-views", "3", "--set", "top_s=2", "n_perturb=1", "--csv", str(place.folder / "rows.csv")]
    argv += ["--prompt"]
    for image in images.glob("*/[1-9]*.png") if change == "drawings" else ():  # of which each takes a while
        image.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "batches", stop_after_a_batch)
        assert predict.main([*argv, "a photo of a {}."]) == 130
    if change == "image":
        replace_an_image(place, monkeypatch)
    more = ["--explain", str(place.folder / "drawings")] if change == "drawings" else []
    assert predict.main([*argv, "a photo of a {}, an icon." if change == "suffix" else "a photo of a {}.", *more]) == 0
    assert "going on" not in capsys.readouterr().err
    assert not more or len(list((place.folder / "drawings").iterdir())) == 3


def test_the_bank_of_views_is_encoded_anew_for_other_images_or_another_image_encoder(tmp_path, monkeypatch):
    place = Workplace(tmp_path, CLASSES[:2])
    place.run("STSS", "stss")
    counted = images_encoded(monkeypatch)

    def bank():
        view_bank(open_run(read_record(tmp_path / "stss")), "test", tmp_path / "bank")
        return sum(counted) // (10 * 6)

    assert [bank(), bank()] == [1, 1]
    path = tmp_path / "data/emoji/noto/test/0/0.png"
    Image.open(path).rotate(90).save(path)
    assert [bank(), bank()] == [2, 2]
    replace_weights(place, monkeypatch)
    assert [bank(), bank()] == [3, 3]
