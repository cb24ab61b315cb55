"""Classes that share one prompt are refused or said wherever one is made; a template means what str.format says."""

import json

import pytest
import torch
from benchmark import Workplace
from hostile import accepted, call, refused
from kinds import EACH
from PIL import Image
from torch.nn.functional import normalize

import tlla
from tlla.backbones.openai_package import clip
from tlla.methods import METHODS
from tlla.prompts.classifier import from_templates
from tlla.prompts.conditional import ConditionalPromptLearner
from tlla.prompts.learner import PromptLearner
from tlla.prompts.templates import zeroshot_features

SAME = ["Fruit", "fruit", "cat"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("published"), ("missile", "Missile", "tool"))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Own images of two classes that are the same word."""
    root = tmp_path_factory.mktemp("images")
    for part in ("train", "test"):
        for name in SAME:
            (root / part / name).mkdir(parents=True)
            Image.effect_noise((40, 40), 90).convert("RGB").save(root / part / name / "0.png")
    return root


@pytest.mark.parametrize("trainer", EACH)
def test_every_kind_of_trainer_refuses_own_classes_that_share_one_prompt(place, own, capfd, trainer):
    flags = ("--dataset-config-file", "configs/datasets/image_folder.yaml", "--root", str(own))
    says = ("'Fruit' (class 0) and 'fruit' (class 2)", "classnames.txt")
    refused(capfd, "train", *place.argv(trainer, f"refused/{trainer}", *flags), says=says)


@pytest.mark.parametrize("trainer", EACH)
def test_classes_of_a_published_dataset_that_share_one_are_said_once(published, capfd, trainer):
    prompts = ("TRAINER.COMPARE.PROMPTS", "['words=', 'others=imagenet7']", "TRAINER.COMPARE.METHODS", "['ZERO']")
    outcome = accepted(capfd, "train", *published.argv(trainer, trainer, "OPTIM.MAX_EPOCH", "1", *prompts))
    said = [line for line in outcome.out.splitlines() if "share one prompt" in line]
    assert len(said) == 1 and said[0].startswith("Emoji: ") and "'missile' (class 0) and 'Missile' (class 1)" in said[0]


def test_a_split_file_of_one_name_in_two_spellings_is_refused(place, own, capfd):
    rows = [["train/cat/0.png", 0, "hot_dog"], ["train/fruit/0.png", 1, "hot  dog"]]
    (own / "split.json").write_text(json.dumps({"train": rows, "test": rows}))
    flags = ("--dataset-config-file", "configs/datasets/image_folder.yaml", "--root", str(own))
    argv = place.argv("ZeroshotCLIP", "spelt", *flags, "DATASET.SPLIT_FILE", "split.json")
    refused(capfd, "train", *argv, says=("'hot_dog' (class 0) and 'hot  dog' (class 1)",))


def test_predict_py_refuses_them(place, own, capfd):
    argv = (own / "test", "--backbone", place.folder / "clip.pt", "--views", "2", "--set", "top_s=1")
    refused(capfd, "predict", *argv, "--classes-from", own / "test", says=("'Fruit'", "'fruit'"))
    refused(capfd, "predict", *argv, "--classes", "cat", "hot_dog", "Hot Dog", says=("'hot_dog'", "'Hot Dog'"))


def test_check_says_which_classes_are_one_to_clip(own, capfd):
    outcome = call(capfd, "datasets", "check", "ImageFolder", "--root", own)
    assert outcome.code == 1 and "'Fruit' and 'fruit'" in outcome.out


PLACES = {
    "Predictor": lambda model, names: tlla.Predictor(model, names),
    "Predictor, ensemble": lambda model, names: tlla.Predictor(model, names, "imagenet7", "ZERO"),
    "Predictor, vectors": lambda model, names: tlla.Predictor(model, names, torch.zeros(3, 64)),
    "train_prompt": lambda model, names: tlla.train_prompt(model, [Image.new("RGB", (8, 8))], [0], names),
    "perturbed_text_features": lambda model, names: tlla.perturbed_text_features(model, names),
    "PromptLearner": lambda model, names: PromptLearner(model, names),
    "PromptLearner.set_classes": lambda model, names: PromptLearner(model, ["a"]).set_classes(names),
    "ConditionalPromptLearner": lambda model, names: ConditionalPromptLearner(model, names),
    "zeroshot_features": lambda model, names: zeroshot_features(model, names, "a {}."),
}


@pytest.mark.parametrize("place_name", PLACES)
@pytest.mark.parametrize("names", [SAME, ["hot dog", "cat", "hot_dog"], ["hot dog", "hot   dog "]])
def test_every_place_that_makes_prompts_refuses_them(tiny_clip, place_name, names):
    with pytest.raises(tlla.InputError, match="share one prompt.*different name"):
        PLACES[place_name](tiny_clip, names)


def test_the_tokenizer_says_what_is_one_prompt(tiny_clip):
    zeroshot_features(tiny_clip, ["Café", "cafe"], "a {}.")  # other tokens: not refused
    with pytest.raises(tlla.InputError, match="share one prompt"):
        zeroshot_features(tiny_clip, ["&lt;", "<"], "a {}.")  # the same for OpenAI's, which reads HTML


GLUED = ["un{}.", "the_{}", "a photo of a big-{}.", "a_photo_of a {}", "photo#{}!", "  an  icon of a {},"]


@pytest.mark.parametrize("template", GLUED)
def test_a_glued_template_is_what_str_format_says_everywhere(tiny_clip, template):
    names = ["fold", "hot_dog", "'s"]
    tokens = clip.tokenize([template.format(name.replace("_", " ")) for name in names])
    with torch.no_grad():
        expected = normalize(tiny_clip.encode_text(tokens), dim=-1)
    classifier = from_templates(tiny_clip, names, template)
    torch.testing.assert_close(zeroshot_features(tiny_clip, names, template), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(classifier.text_features, expected, atol=1e-5, rtol=0)
    assert classifier.tunable == (template != "un{}.")  # whose "un" is within the class's first token
    for name in METHODS:
        if classifier.tunable or not METHODS[name].needs_text_encoder:
            method = METHODS[name]()
            method.start(classifier)
            torch.testing.assert_close(method.classifier.text_features, expected, atol=1e-5, rtol=0)


def test_a_word_that_all_names_swallow_is_no_context(tiny_clip):
    with pytest.raises(tlla.InputError, match="apart from it"):
        tlla.Predictor(tiny_clip, ["fold", "do"], "un{}.", "TPT")
    assert from_templates(tiny_clip, ["fold", "do"], "a photo of un{}.").ctx.shape == (3, 64)
