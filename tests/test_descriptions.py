"""Class descriptions (CuPL's JSON) as a prompt: features by hand, names, trainers, Compare, predict.py, bad files."""

import hashlib
import json

import clip
import pytest
import torch
from conftest import CLASSNAMES
from hostile import fails
from torch.nn.functional import normalize

import tlla
import tlla.predict.command
import train
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.prompts.choose import make_classifier
from tlla.prompts.descriptions import read_class_descriptions
from tlla.prompts.templates import zeroshot_features

SENTENCES = {
    "bird": ["A bird has feathers.", "A bird can be found in trees.", "Wings and a beak."],
    "land_vehicle": ["A land vehicle has wheels."],
    "tool": ["A tool fits a hand.", "Made of metal and wood."],
    "airport": ["An airport has runways."],
}


def written(folder, content, name="cupl.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def by_hand(model, names, sentences):
    rows = []
    with torch.no_grad():
        for name in names:
            each = [normalize(model.encode_text(clip.tokenize([text])), dim=-1)[0] for text in sentences[name]]
            rows.append(sum(each) / len(each))
    return normalize(torch.stack(rows), dim=-1)


def test_class_features_are_the_normalised_mean_of_normalised_sentences(tiny_clip, tmp_path):
    descriptions = read_class_descriptions(written(tmp_path, SENTENCES))
    found = zeroshot_features(tiny_clip, ["tool", "land vehicle", "bird"], descriptions)
    expected = by_hand(tiny_clip, ["tool", "land_vehicle", "bird"], SENTENCES)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_they_serve_every_method_that_does_not_change_the_prompt(tiny_clip, tmp_path):
    path = written(tmp_path, {name: [f"It is {name}.", "A thing " * (i + 1)] for i, name in enumerate(CLASSNAMES)})
    classifier = make_classifier(tiny_clip, CLASSNAMES, path)
    for name, method in METHODS.items():
        if method.needs_text_encoder or method.rule == "stss":
            with pytest.raises(InputError, match="nor have class descriptions"):
                method().start(classifier)
        else:
            method().start(classifier)
            assert name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "hold no classes"),
        ("{}", "hold no classes"),
        ({"dog": "A dog."}, "no list of sentences on 'dog'"),
        ({"dog": []}, "no list of sentences on 'dog'"),
        ({"dog": ["A dog.", " "]}, "no list of sentences on 'dog'"),
        ({"dog": ["a photo of a {}."]}, "a template with {} on 'dog'"),
        ({"dog": {"texts": 1}}, "no list of sentences on 'dog'"),
        ('{"sea dog": ["a"], "sea_dog": ["b"]}', "'sea_dog' twice"),
        (
            {"Dog": ["A dog."], "cat": ["A cat."]},
            "on 1 ('dog') of the 2 classes, while 1 ('Dog') in it is",
        ),
        ({"dog": ["same"], "cat": ["same"]}, "share one prompt"),
        ({"dog": ["far " * 80], "cat": ["A cat."]}, "shorten that sentence in"),
    ],
)
def test_a_file_that_cannot_serve_is_refused_in_one_sentence(tiny_clip, tmp_path, content, says):
    path = written(tmp_path, content)
    with pytest.raises(InputError) as error:
        make_classifier(tiny_clip, ["dog", "cat"], path)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def described(place):
    """A file for the classes of the small benchmark, and Compare on it and on an ensemble."""
    path = written(place.folder, SENTENCES)
    prompts = f"['cupl={path}', 'seven=imagenet7']"
    place.run("Compare", "compare", *("TRAINER.COMPARE.METHODS", "['ZERO', 'TDA']"), "TRAINER.COMPARE.PROMPTS", prompts)
    return path


def record_of(place, name):
    return json.loads((place.folder / name / "results.json").read_text())


def test_trainers_and_compare_test_with_them_and_say_which_file_it_was(place, described):
    alone = place.run("ZERO", "alone", "TRAINER.PROMPT.TEMPLATE", str(described))
    plain = place.run("ZeroshotCLIP", "zeroshot", "TRAINER.ZSCLIP.TEMPLATE", str(described))
    entry = record_of(place, "compare/cupl/ZERO")
    said = f"{described} (sha256 {hashlib.sha256(described.read_bytes()).hexdigest()[:12]})"
    assert alone["method"]["template"] == entry["method"]["template"] == plain["method"]["settings"]["TEMPLATE"] == said
    sha256 = {record["splits"]["test"]["prompt_sha256"] for record in (alone, entry, plain)}
    assert len(sha256) == 1 and place.predictions("alone") == place.predictions("compare/cupl/ZERO")


def test_compare_tests_anew_when_the_file_has_changed(place, described, capsys):
    before = described.read_text()
    argv = place.argv("Compare", "compare", "TRAINER.COMPARE.METHODS", "['ZERO', 'TDA']")
    argv += ["TRAINER.COMPARE.PROMPTS", f"['cupl={described}', 'seven=imagenet7']"]
    written(place.folder, {**SENTENCES, "tool": ["A hammer."]})
    assert train.main(argv) == 0
    assert "Tested before, and kept (--fresh: not): seven ZERO, seven TDA\n" in capsys.readouterr().out
    described.write_text(before)


def test_trainers_refuse_them_where_they_cannot_serve(place, described, capfd):
    assert "nor have class descriptions" in fails(
        capfd, place.argv("TPT", "no", "TRAINER.PROMPT.TEMPLATE", str(described))
    )
    argv = place.argv("TipAdapter", "no", "TRAINER.TIPADAPTER.TEMPLATE", str(described))
    assert "which serve tests alone" in fails(capfd, argv)
    assert "is a file of class descriptions" in fails(
        capfd, place.argv("CoOp", "no", "TRAINER.COOP.CTX_INIT", "cupl.json")
    )
    argv = place.argv("ZERO", "no", "TRAINER.PROMPT.TEMPLATE", str(place.folder / "none.json"))
    assert f"there is no file {place.folder / 'none.json'}" in fails(capfd, argv)


def test_predict_py_takes_the_classes_from_the_file(place, described, capsys):
    image = str(place.folder / "data/emoji/noto/test/0/0.png")
    few = ("--method", "zero", "--views", "4", "--set", "top=0.5", "--backbone", str(place.folder / "clip.pt"))
    assert tlla.predict.command.main([image, "--prompt", str(described), *few, "--top-k", "4"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("bird", "land vehicle", "tool", "airport"))
