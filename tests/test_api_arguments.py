"""Every argument of every public function takes what is meant, or refuses it in one sentence.

A public function or an argument of one that has no cases here fails `test_every_argument_has_cases`.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from benchmark import CLASSES
from conftest import TINY_VIT, make_clip
from PIL import Image

import tlla
from tlla.prompts.choose import make_classifier
from tlla.prompts.learner import PromptLearner

IMAGE = Image.effect_noise((40, 40), 90).convert("RGB")
IMAGES = [IMAGE] * 3
SMALL = {"n_views": 6, "top_s": 3, "n_perturb": 2}
QUICK = {"epochs": 1, "n_ctx": 2, "ctx_init": ""}
VIEWS, TEXT = torch.randn(6, 8), torch.randn(3, 4, 8)


class Public:
    """Calls of all that is public, with arguments that are right."""

    def __init__(self, model, folder):
        ctx, numbers = torch.randn(4, 64), torch.arange(2)
        predictor = tlla.Predictor(model, CLASSES, **SMALL)
        found = predictor.predict(IMAGES[:2])
        whole = {"index": numbers, "probability": torch.ones(2, 1), "seconds": torch.zeros(2)}
        whole |= {"details": {"sharpness": torch.zeros(2)}, "errors": [], "top_k": 1}
        training = {"model": model, "images": IMAGES, "labels": [0, 1, 2], "class_names": CLASSES, **QUICK}
        self.calls = {
            "Predictions": (tlla.Predictions, {"class_names": ["a"], "names": ["0", "1"], **whole}),
            "Predictions.rows": (lambda: list(found.rows()), {}),
            "Predictions.table": (found.table, {}),
            "Predictions.to_csv": (found.to_csv, {"path": folder / "p.csv"}),
            "Predictions.to_jsonl": (found.to_jsonl, {"path": str(folder / "p.jsonl")}),
            "Predictor": (tlla.Predictor, {"model": model, "class_names": CLASSES, **SMALL}),
            "Predictor.predict": (predictor.predict, {"images": IMAGES}),
            "Predictor.batches": (lambda **given: list(predictor.batches(**given)), {"images": IMAGES}),
            "Prompt": (tlla.Prompt, {"ctx": ctx}),
            "Prompt.or_at": (tlla.Prompt(ctx).or_at, {"position": "middle"}),
            "Prompt.put_into": (tlla.Prompt(ctx).put_into, {"learner": PromptLearner(model, CLASSES, len(ctx))}),
            "Prompt.save": (tlla.Prompt(ctx).save, {"folder": folder / "run"}),
            "available_models": (tlla.available_models, {}),
            "load_clip": (tlla.load_clip, {"name": "EmojiCLIP"}),
            "perturbed_text_features": (tlla.perturbed_text_features, {"model": model, "class_names": CLASSES}),
            "read_image": (tlla.read_image, {"source": IMAGE}),
            "stss": (tlla.stss, {"view_features": VIEWS, "text_features": TEXT, "top_s": 2}),
            "train_prompt": (tlla.train_prompt, training),
        }


@pytest.fixture(scope="module")
def model():
    return make_clip(TINY_VIT)


@pytest.fixture(scope="module")
def public(model, tmp_path_factory):
    return Public(model, tmp_path_factory.mktemp("public")).calls


NO_WHOLE = [None, "3", 2.5, math.nan, True, [3], np.ones(3), -1]
NO_COUNT = [*NO_WHOLE, 0]
NO_NUMBER = [None, "0.1", math.nan, math.inf, True, [0.1, 0.2], torch.ones(2), -1]
NO_FLAG = [None, "False", 1, 0.0, []]
NO_PATH = [None, 3, b"x", ["a"], ""]
NO_NAMES = [None, "cat", [], ["cat", None], ["cat", " "], {"cat": 0}, {"cat", "dog"}, 3, np.array("cat")]
NO_MODEL = [None, "EmojiCLIP", torch.nn.Linear(2, 2), (make_clip, None)]
NO_PROMPT = [None, 3, [], ["no place"], ["a {}", 3], "a photo", b"a {}", {"a {}"}, "a {} {}", "a {x} {}", "no/such/run"]
NO_PROMPT += [torch.zeros(4, 3), torch.zeros(4, 64, dtype=torch.int), torch.full((4, 64), math.nan)]
NO_PROMPT += [np.zeros((9, 4, 64))]
NO_FEATURES = [None, "x", 3.0, [[1.0], [1.0, 2.0]], torch.full((6, 8), math.nan), torch.ones(6, 8) * 1j]
NO_IMAGES = [None, 3, b"x.png", {"a.png": 0}, {"a.png"}, [None], [b"x"], np.zeros((2, 8, 8, 3))]
NO_IMAGES += [torch.zeros(2, 3, 8, 8)]
NO_PAIR = [None, 0.5, "01", (0.5,), (0.1, 0.5, 1.0), (0.5, 0.1), (0.0, 1.0), (0.1, 2.0), ("a", "b"), (math.nan, 1.0)]

CASES = {
    "Predictions": {
        "class_names": [None, "cat", ["a", "b"]],
        "names": [None, "0", ["0"]],
        "index": [None, [0, 1], torch.arange(3)],
        "probability": [None, torch.ones(2), torch.ones(1, 2)],
        "seconds": [None, 0.1, torch.zeros(3)],
        "details": [None, {"x": 1.0}, {"x": torch.zeros(3)}],
        "errors": [None, "x"],
        "top_k": NO_COUNT,
    },
    "Predictions.rows": {},
    "Predictions.table": {},
    "Predictions.to_csv": {"path": [*NO_PATH, "."]},
    "Predictions.to_jsonl": {"path": [*NO_PATH, "."]},
    "Predictor": {
        "model": NO_MODEL,
        "class_names": NO_NAMES,
        "prompt": [*NO_PROMPT, "imagenet7"],
        "method": [None, 3, "STS", ["STSS"], tlla.Prompt],
        "n_views": [*NO_COUNT, 10**9],
        "crop_scale": NO_PAIR,
        "augmix": NO_FLAG,
        "seed": [*NO_WHOLE, 2**63],
        "batch_views": NO_COUNT,
        "margin": [-0.1, 1.5, "0.5", None, float("nan"), True],
        "top_k": NO_COUNT,
        "precision": [None, 16, "int8", ["fp32"], torch.float16],
        "settings": [{"top_s": 2.5}, {"top_s": True}, {"top_s": 7}, {"rho": "0.1"}, {"vote": "loudest"}, {"tops": 3}],
    },
    "Predictor.predict": {"images": NO_IMAGES, "progress": NO_FLAG, "workers": NO_WHOLE},
    "Predictor.batches": {"images": NO_IMAGES, "workers": NO_WHOLE, "start": NO_WHOLE, "thumbnails": NO_FLAG},
    "Prompt": {
        "ctx": [None, "x", [[0.1]], torch.zeros(4), torch.zeros(4, 64, dtype=torch.int), np.full((4, 64), math.nan)],
        "info": [None, {"class_names": ("cat",)}],
        "epochs": [value for value in NO_WHOLE if value is not None],
        "losses": [None, 0.1, ["x"]],
        "meta_net": [None, {"meta_net.linear1.weight": 0.1}],
        "trained_by": [None, "CoOp", {"name": 3}],
        "path": [3, b"x"],
    },
    "Prompt.or_at": {"position": [None, 3, "last"]},
    "Prompt.put_into": {"learner": [None, 3, torch.zeros(4, 64)]},
    "Prompt.save": {"folder": [*NO_PATH, __file__]},
    "available_models": {},
    "load_clip": {
        "name": [None, 3, b"x", ["ViT-B/32"], "", ".", "ViT-B32", "no/such.pt", "open_clip:"],
        "device": [None, "gpu", "cuda:99", 3.5, "cpu:x"],
        "half": NO_FLAG,
    },
    "perturbed_text_features": {
        "model": NO_MODEL,
        "class_names": NO_NAMES,
        "prompt": [*NO_PROMPT, "imagenet7"],
        "n_perturb": NO_WHOLE,
        "rho": NO_NUMBER,
        "seed": [*NO_WHOLE, 2**63],
    },
    "read_image": {"source": [None, 3, b"x.png", ["x.png"], np.zeros((8, 8, 3)), ".", "no/such.png", __file__, ""]},
    "stss": {
        "view_features": [*NO_FEATURES, *map(torch.ones, (8, (0, 8), (6, 7), (1, 1, 6, 8)))],
        "text_features": [*NO_FEATURES, *map(torch.ones, ((4, 8), (0, 4, 8), (3, 0, 8), (3, 4, 7)))],
        "logit_scale": [None, "100", math.nan, -1, torch.ones(2), [1.0, 2.0]],
        "top_s": [*NO_COUNT, 7],
        "lam": NO_NUMBER,
        "vote": [None, 3, "loudest", ["majority"], np.array(["majority", "mean_prob"])],
    },
    "train_prompt": {
        "model": NO_MODEL,
        "images": [*NO_IMAGES, [], IMAGES[:2], IMAGE, "folder", ["absent.png"] * 3],
        "labels": [
            *(None, "bird", 3, [0, 1], [0, 1, 3], [0, 1, -1], [0, 1, 0.5], [0, 1, None], [True, False, True]),
            *([0, 1, "brid"], [[1, 0, 0]] * 3, torch.eye(3), torch.tensor([0, 1, math.nan]), {0: 1, 1: 2, 2: 0}),
        ],
        "class_names": NO_NAMES,
        "rho": NO_NUMBER,
        "lam": NO_NUMBER,
        "variant": [None, 3, "samm", ["sam"], "gsam(alpha=x)", "sam(k=2)"],
        "epochs": NO_COUNT,
        "lr": NO_NUMBER,
        "n_ctx": [*NO_COUNT, 100],
        "ctx_init": [None, False, 3, ["a", "photo"], "very " * 90],
        "csc": NO_FLAG,
        "class_token_position": [None, 3, "back", ["end"], np.array(["end", "front"])],
        "batch_size": NO_COUNT,
        "crop_scale": NO_PAIR,
        "seed": [*NO_WHOLE, 2**63],
        "workers": NO_WHOLE,
        "progress": NO_FLAG,
    },
}


def arguments(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def public_functions():
    """Name -> arguments of all functions, classes and methods that `tlla` shows."""
    found = {}
    for name in tlla.__all__:
        thing = getattr(tlla, name)
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            found[name] = arguments(thing)
            methods = inspect.getmembers(thing, inspect.isfunction)
            found |= {f"{name}.{key}": arguments(method) for key, method in methods if not key.startswith("_")}
        elif inspect.isfunction(thing):
            found[name] = arguments(thing)
    return found


def test_every_argument_has_cases(public):
    expected = public_functions()
    assert {name: sorted(cases) for name, cases in CASES.items()} == {name: sorted(a) for name, a in expected.items()}
    assert public.keys() == expected.keys()


@pytest.mark.parametrize("name", CASES)
def test_right_arguments_work_and_a_wrong_one_is_one_sentence(public, name):
    function, right = public[name]
    function(**right)
    for argument, value in ((argument, value) for argument, values in CASES[name].items() for value in values):
        given = right | (value if argument == "settings" else {argument: value})
        try:
            function(**given)
        except tlla.InputError as error:
            assert "\n" not in str(error) and 20 < len(str(error)) < 600, str(error)
        except Exception as error:
            pytest.fail(f"{argument}={value!r} raises {error!r}")
        else:
            pytest.fail(f"{argument}={value!r} is taken")


# What is meant is taken


def test_labels_are_numbers_of_any_kind_or_names(model):
    def ctx(labels):
        return tlla.train_prompt(model, IMAGES, labels, CLASSES, **QUICK).ctx

    numbers, names = [2, 0, 1], ["tool", "bird", "land vehicle"]
    same = (names, np.array(names), tuple(numbers), np.array(numbers, dtype=np.uint8), torch.tensor(numbers))
    for labels in (*same, iter(numbers)):
        assert torch.equal(ctx(labels), ctx(numbers))


def test_features_are_of_any_precision_and_of_numpy():
    expected = tlla.stss(VIEWS, TEXT, top_s=2)
    assert torch.equal(tlla.stss(VIEWS.numpy(), TEXT.double(), np.float64(100), top_s=np.int64(2)), expected)
    half = tlla.stss(VIEWS.half(), TEXT.half(), torch.tensor(100.0), top_s=2)
    assert torch.equal(half, tlla.stss(VIEWS.half().float(), TEXT.half().float(), top_s=2))


def test_prompts_are_lists_of_templates_and_arrays(model):
    def text(prompt):
        return make_classifier(model, np.array(CLASSES), prompt).text_features

    assert torch.equal(text(["a {}."]), text("a {}."))
    both = torch.stack([text("a {}."), text("the {}.")]).mean(dim=0)
    torch.testing.assert_close(text(("a {}.", "the {}.")), torch.nn.functional.normalize(both, dim=-1))
    assert torch.equal(text(np.full((3, 64), 0.1, np.float32)), text(torch.full((3, 64), 0.1)))


def test_numbers_of_numpy_paths_and_generators_are_taken(model, tmp_path):
    numbers = {"n_views": np.int64(6), "seed": np.int32(0), "top_s": np.int16(3), "rho": np.float32(1)}
    predictor = tlla.Predictor(model, CLASSES, **numbers, n_perturb=2)
    assert predictor.method.top_s == 3 and predictor.predict(iter(IMAGES)).labels == predictor.predict(IMAGES).labels
    assert len(predictor.predict(IMAGE)) == 1
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    assert tlla.load_clip(tmp_path / "clip.pt", torch.device("cpu")).name == str(tmp_path / "clip.pt")
    path = tlla.Prompt(np.zeros((4, 64), np.float32)).save(str(tmp_path))
    assert torch.equal(tlla.Prompt.load(path).ctx, torch.zeros(4, 64))
