"""Selection rules against a naive loop in NumPy, inside every method, in Compare and the tables, and where refused."""

import copy
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmark import REPO
from hostile import fails
from PIL import Image

import report.__main__
import tlla.predict.command
import tlla.rules
from tlla import Predictor
from tlla.errors import InputError
from tlla.methods import METHODS, base
from tlla.methods.choice import build_method
from tlla.predict.explain import _numbers, looks
from tlla.prompts.classifier import Classifier, PromptClassifier
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.records.record import Record
from tlla.rules import RULES, Chooser, Known, Rule, parse_rule
from tlla.views.rounds import BatchViews, predict_in_rounds

NAMES = ["dog", "golden retriever", "sea anemone"]
SEED = 3
CHOOSING = sorted(name for name, method in METHODS.items() if method.rule)


@pytest.fixture(scope="module")
def task(tiny_clip):
    """A prompt, views of four images that are near to class features, and what is known of these images."""
    classifier = PromptClassifier(PromptedCLIP(tiny_clip, PromptLearner(tiny_clip, NAMES, ctx_init="a photo of a")))
    classifier.scale = 30.0
    generator = torch.Generator().manual_seed(1)
    # The text features of a random CLIP are nearly equal: their mean is taken off.
    axes = F.normalize(classifier.text_features - classifier.text_features.mean(dim=0), dim=-1)
    noise = torch.randn(4, 7, axes.shape[1], generator=generator)
    features = F.normalize(axes[torch.tensor([0, 1, 2, 1])][:, None] + 0.4 * noise, dim=-1)
    known = Known(torch.tensor([5, 0, 3, 9]), torch.tensor([0, 1, 0, 2]))
    return SimpleNamespace(classifier=classifier, features=features, known=known)


def distribution(logits):
    weights = [math.exp(x - max(logits)) for x in logits]
    return [w / sum(weights) for w in weights]


def shannon(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def naive_stss(view, rho=0.5, lam=1.0, n=8):
    plain = shannon(distribution(view.logits()))
    texts = view.task.classifier.perturbed(rho, n, SEED)[1:, 0].double().numpy()
    return plain + lam * max(shannon(distribution(view.logits(text))) - plain for text in texts)


def sorted_probability(view):
    return sorted(distribution(view.logits()), reverse=True)


NAIVE = {
    "entropy": lambda view: shannon(distribution(view.logits())),
    "max_prob": lambda view: -sorted_probability(view)[0],
    "margin": lambda view: sorted_probability(view)[1] - sorted_probability(view)[0],
    "lse_gap": lambda view: sum(view.logits()) / len(NAMES) - math.log(sum(map(math.exp, view.logits()))),
    "tsallis": lambda view: (sum(p**0.1 for p in distribution(view.logits())) - 1) / (1 - 0.1),
    "tsallis(q=0.6)": lambda view: (sum(p**0.6 for p in distribution(view.logits())) - 1) / (1 - 0.6),
    "stss": naive_stss,
    "stss(rho=2.0,lam=3.0,n_perturb=2)": lambda view: naive_stss(view, 2.0, 3.0, 2),
    "all": lambda view: 0.0,
    "random": lambda view: np.random.default_rng((SEED, int(view.task.known.index[view.image]))).random(9)[view.number],
    "oracle": lambda view: -math.log(distribution(view.logits())[view.task.known.label[view.image]]),
}


class View:
    """One view of one image, in double precision."""

    def __init__(self, task, image, number):
        self.task, self.image, self.number = task, image, number

    def logits(self, text=None):
        text = self.task.classifier.text_features.double().numpy() if text is None else text
        return [30.0 * x for x in (text @ self.task.features[self.image, self.number].double().numpy()).tolist()]


def naive_scores(rule, task):
    n_images, n_views = task.features.shape[:2]
    return torch.tensor([[NAIVE[rule](View(task, i, v)) for v in range(n_views)] for i in range(n_images)])


def scores(rule, task, rows=slice(None)):
    chooser = Chooser(parse_rule(rule), task.classifier, SEED)
    return chooser.rule.scores(chooser.see(task.features[rows], known=task.known[rows]))


def test_every_rule_is_tested_here():
    assert {name.partition("(")[0] for name in NAIVE} == set(RULES)


@pytest.mark.parametrize("rule", NAIVE)
def test_scores_equal_the_naive_loop_whatever_the_batch(task, rule):
    found = scores(rule, task)
    assert str(parse_rule(rule)) == rule
    torch.testing.assert_close(found, naive_scores(rule, task).float(), atol=2e-5, rtol=2e-5)
    for rows in ([3, 1], [2], [3, 2, 1, 0]):
        torch.testing.assert_close(scores(rule, task, rows), found[rows], atol=1e-6, rtol=1e-6)


def test_lse_gap_orders_views_as_tsallis_does_for_small_q_and_tsallis_tends_to_entropy(task):
    order = [scores(rule, task).argsort(dim=1) for rule in ("lse_gap", "tsallis(q=0.01)", "entropy")]
    assert torch.equal(order[0], order[1])
    assert not torch.equal(order[0], order[2])
    torch.testing.assert_close(scores("tsallis(q=0.999)", task), scores("entropy", task), atol=2e-3, rtol=2e-3)


def predict(name, rule, task, rows=slice(None), **more):
    method = METHODS[name](rule=rule, **({"top_s": 3} if name == "STSS" else {"top": 0.45}), **more)
    method.start(task.classifier, SEED)
    method.known = task.known[rows]
    return method, method.predict(task.features[rows])


THIRD = [(name, rule) for i, name in enumerate(CHOOSING) for j, rule in enumerate(RULES) if (i + j) % 3 == 0]


@pytest.mark.parametrize(("name", "rule"), THIRD)
def test_a_method_keeps_the_views_that_are_chosen_by_hand(task, name, rule, monkeypatch):
    monkeypatch.setattr(base, "PROMPTS_AT_ONCE", 2 * len(NAMES))  # two groups
    more = {"entropy_threshold": 0.0} if name == "DPE" else {}  # its class features stay those of the prompt
    _, found = predict(name, rule, task, **more)
    by_score = naive_scores(rule, task).sort(dim=1, stable=True).indices
    chosen = []

    def by_hand(self, features, logits, shift=None):
        """Finds the images by their features."""
        rows = [next(i for i, own in enumerate(task.features) if torch.equal(own, one)) for one in features]
        chosen.extend(rows)
        return by_score[rows]

    monkeypatch.setattr(base.Method, "rank", by_hand)
    if name == "STSS":  # has scores of its own
        logits = 30.0 * task.features @ task.classifier.text_features.T
        s = 7 if rule == "all" else 3
        kept = torch.stack([one[order[:s]] for one, order in zip(logits, by_score, strict=True)])
        expected = kept.softmax(dim=-1).mean(dim=1)
    else:
        expected = predict(name, "all" if rule == "all" else "entropy", task, **more)[1]
        assert sorted(chosen) == [0, 1, 2, 3]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_all_keeps_all_views_and_the_others_as_many_as_the_method_asks_for(task):
    for name in CHOOSING:
        assert [predict(name, rule, task)[0].n_kept(7) for rule in ("all", "entropy", "random")] == [7, 3, 3]


def test_the_rules_are_by_default_those_of_the_authors():
    own = {name: method().rule for name, method in METHODS.items()}
    assert own == {name: "stss" if name == "STSS" else "entropy" if name in CHOOSING else "" for name in METHODS}
    assert set(METHODS) - set(CHOOSING) == {"SingleView", "MeanViews", "MTA", "SAR", "OnZeta", "ADTE", "StatA", "DeYO"}


def test_the_rule_stss_has_the_settings_of_the_method_stss_but_for_those_in_brackets():
    method = METHODS["STSS"](rho=0.7, lam=2.0, rule="stss(lam=3)")
    assert str(method.build_rule()) == "stss(rho=0.7,lam=3.0)"
    assert METHODS["STSS"](rho=0.7).title == "STSS"
    assert METHODS["ZERO"](rule=" Tsallis( q = 0.3 ) ").title == "ZERO+tsallis(q=0.3)"
    assert METHODS["ZERO"](rule="tsallis(q=0.1)").title == "ZERO+tsallis"


def test_where_a_method_moves_the_class_features_the_perturbed_ones_move_along(task):
    chooser, shift = Chooser(parse_rule("stss"), task.classifier, SEED), torch.linspace(0, 0.1, 32).expand(3, 32)
    text = F.normalize(task.classifier.perturbed(0.5, 8, SEED) + shift, dim=-1)
    moved = Classifier(text[0, 0], 30.0)
    seen = chooser.see(task.features, moved.logits(task.features), task.known, shift)
    expected = tlla.rules.sharpness(seen.entropy, task.features, text[1:], 30.0)
    torch.testing.assert_close(seen.sharpness, expected)


def test_perturbed_prompts_are_encoded_once_for_all_methods_of_a_prompt(task, monkeypatch):
    classifier, calls = copy.copy(task.classifier), []
    classifier._kept, encode = {}, classifier.encode
    monkeypatch.setattr(classifier, "encode", lambda context: calls.append(len(context)) or encode(context))
    for name in ("STSS", "ZERO", "VTE"):
        METHODS[name](rule="stss").start(classifier, SEED)
    assert calls == [9]


def test_random_views_stay_the_same_when_views_are_encoded_in_rounds(task):
    views = torch.randint(256, (4, 20, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    encode = lambda views: F.normalize(views.flatten(2).float() - 120, dim=-1)  # noqa: E731
    method = METHODS["EntropyMean"](rule="random", top=0.2)
    method.start(Classifier(F.normalize(torch.randn(3, 12), dim=-1), 3.0), SEED)
    found = predict_in_rounds(method, BatchViews(encode, views, task.known), margin=1.0)
    method.known = task.known
    torch.testing.assert_close(found, method.predict(encode(views)))


@pytest.mark.parametrize(
    ("text", "says"),
    (
        ("entropie", "RULE 'entropie' is not a rule: did you mean 'entropy'? (known: all, entropy"),
        ("", "RULE '' is not a rule: write a name, with settings as in 'tsallis(q=0.3)' (known: all"),
        (5, "RULE 5 is not a rule: write a name"),
        ("tsallis(q=0.3", "is not a rule: write a name"),
        ("tsallis(q=1)", "RULE 'tsallis(q=1)': q must lie between 0 and 1, but got 1.0"),
        ("tsallis(q=much)", "RULE 'tsallis(q=much)': q must be a finite number >= 0, but got 'much'"),
        ("tsallis(0.3)", "the rule tsallis has no setting '0.3': known are q"),
        ("stss(lambda=1)", "the rule stss has no setting 'lambda': did you mean 'lam'?"),
        ("stss(n_perturb=1.5)", "n_perturb must be a whole number, at least 0, but got 1.5"),
        ("stss(rho=-1)", "rho must be a finite number >= 0, but got -1"),
        ("margin(q=1)", "the rule margin has no settings"),
    ),
)
def test_what_is_not_a_rule_is_refused_in_one_sentence(text, says):
    with pytest.raises(InputError, match=re.escape(says)):
        METHODS["ZERO"](rule=text)


def test_a_rule_that_needs_a_prompt_refuses_an_ensemble_and_one_that_needs_more_says_so(task):
    fixed = Classifier(task.classifier.text_features, 30.0)
    with pytest.raises(InputError, match="perturbations are of the prompt's context vectors, but an ensemble"):
        METHODS["ZERO"](rule="stss").start(fixed)
    for rule, says in (("random", "an image's index, which is not known"), ("oracle", "true classes, which are not")):
        method = METHODS["ZERO"](rule=rule)
        method.start(fixed)
        with pytest.raises(InputError, match=says):
            method.predict(task.features)


def test_predictions_refuse_the_oracle_before_anything_is_loaded(tiny_clip, capfd):
    says = "the rule oracle keeps views by true classes, which are not known of images to predict"
    with pytest.raises(InputError, match=says):
        Predictor(tiny_clip, NAMES, method="zero", rule="oracle")
    argv = ["a.png", "--classes", "a", "b", "--backbone", "none.pt", "--method", "zero", "--set", "rule=oracle"]
    assert tlla.predict.command.main(argv) == 2
    assert says in capfd.readouterr().err


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)) for _ in range(3)]


def test_a_prediction_by_another_rule_does_not_depend_on_the_batch(tiny_clip, pictures):
    found = [
        Predictor(tiny_clip, NAMES, method="tlla", n_views=6, top_s=2, batch_views=n, rule="random").predict(pictures)
        for n in (6, 18)
    ]
    torch.testing.assert_close(found[0].probability, found[1].probability)
    assert "sharpness" not in found[0].details and "agreement" in found[0].details


def test_contributings_example_of_a_rule_works(task):
    code = re.search(r"```python\n# in tlla/rules.py\n(.*?)```", (REPO / "CONTRIBUTING.md").read_text(), re.S)[1]
    names = dict(vars(tlla.rules))
    try:
        exec(code, names)
        (name,) = set(RULES) - {text.partition("(")[0] for text in NAIVE}
        assert predict("ZERO", name, task)[0].title == f"ZERO+{name}"
        assert issubclass(RULES[name], Rule)
    finally:
        for name in set(RULES) - {text.partition("(")[0] for text in NAIVE}:
            del RULES[name]


METHODS_KEY, RULES_KEY = "TRAINER.COMPARE.METHODS", "TRAINER.COMPARE.RULES"
COMPARED = (METHODS_KEY, "['SingleView', 'ZERO', 'STSS', 'TDA']")


def nll(place, output):
    return json.loads((place.folder / output / "results.json").read_text())["splits"]["test"]["nll"]


def test_compare_crosses_methods_with_rules_as_single_runs_would(place, call):
    rules = ["entropy", "tsallis(q=0.3)", "stss", "random", "oracle"]
    record = place.run("Compare", "compare", *COMPARED, RULES_KEY, str(rules[1:]))
    assert [name for _, name in record["splits"]["test"]["parts"]] == [
        "SingleView",
        *("ZERO+tsallis(q=0.3)", "ZERO+stss", "ZERO+random", "ZERO+oracle"),
        *("STSS+tsallis(q=0.3)", "STSS", "STSS+random", "STSS+oracle"),
        *("TDA+tsallis(q=0.3)", "TDA+stss", "TDA+random", "TDA+oracle"),
    ]
    kept = (place.folder / "compare/template/ZERO+random/results.json").stat().st_mtime_ns
    place.run("Compare", "compare", *COMPARED, RULES_KEY, str(rules))  # adds the first
    assert (place.folder / "compare/template/ZERO+random/results.json").stat().st_mtime_ns == kept
    for name, rule, title in (
        ("ZERO", "random", "ZERO+random"),
        ("ZERO", "oracle", "ZERO+oracle"),
        ("STSS", "tsallis(q=0.3)", "STSS+tsallis(q=0.3)"),
        ("TDA", "entropy", "TDA"),
    ):
        own = place.run(name, f"own/{title}", f"TRAINER.{name}.RULE", rule)
        assert place.rows(f"own/{title}") == place.rows(f"compare/template/{title}")
        assert own["method"]["rule"] == {"name": rule, "own": title == name, "used_labels": rule == "oracle"}
        assert own["trainer"] == own["method"]["name"] == name and "RULE" not in own["method"]["settings"]
    found = [nll(place, f"compare/template/STSS{rule}") for rule in ("+oracle", "", "+random", "+tsallis(q=0.3)")]
    assert min(found) == found[0] and len(set(found)) == 4
    table = (place.folder / "compare/table.md").read_text()
    assert "| ZERO+oracle (used labels) " in table and "Used labels: the views were chosen by" in table
    found = call(place.folder / "compare", "--table")[1]
    assert "ZERO (rule tsallis(q=0.3)) " in found and "ZERO (rule oracle, used labels) " in found
    assert "USED LABELS: STSS (rule oracle, used labels): the true classes" in found
    assert not re.search(r"oracle, used labels\) .*\*", found)  # is never the best
    assert "LEFT OUT" not in found


def test_the_page_of_an_entry_of_compare_names_its_rule(place, tmp_path, capsys):
    place.run("Compare", "paged", METHODS_KEY, "['ZERO', 'STSS']", RULES_KEY, "['stss', 'oracle', 'all']")
    for name, says in (("STSS+oracle", "the rule oracle, which used labels"), ("STSS+all", "6 views of lowest score")):
        argv = ["page", str(place.folder / f"paged/template/{name}"), "--out", str(tmp_path / name)]
        assert report.__main__.main(argv) == 0
        assert says in (tmp_path / name / "index.html").read_text()
    moved = (place.folder / "paged/template/STSS+all").rename(place.folder / "paged/template/moved")
    assert report.__main__.main(["page", str(moved), "--out", str(tmp_path)]) == 2
    assert "moved is none of the entries of its Compare (template/ZERO+stss, " in capsys.readouterr().err


def test_a_drawing_names_the_rule(tiny_clip, pictures):
    predictor = Predictor(tiny_clip, NAMES, method="tlla", n_views=6, top_s=2, rule="tsallis(q=0.3)")
    (batch,) = predictor.batches(pictures, thumbnails=True)
    look = [look for _, look in looks(batch, predictor.views)][0]
    assert look.rule == "tsallis(q=0.3)" and _numbers(look)[-1] == "score: the rule tsallis(q=0.3)"
    order = scores_of(predictor, batch).argsort(dim=1)[0]
    assert look.kept == order[:2].tolist()


def scores_of(predictor, batch):
    """Tsallis entropies of a batch's views."""
    p = predictor.classifier.logits(batch.features).softmax(dim=-1)
    return (p.pow(0.3).sum(dim=-1) - 1) / 0.7


def test_an_entry_is_kept_whatever_rule_the_methods_own_setting_names(place, capsys):
    """So are those of versions that did not have the setting."""
    zero = (METHODS_KEY, "['ZERO']", RULES_KEY, "['entropy']")
    place.run("Compare", "kept", *zero)
    capsys.readouterr()
    place.run("Compare", "kept", *zero, "TRAINER.ZERO.RULE", "margin")
    assert "kept (--fresh: not): template ZERO\n" in capsys.readouterr().out
    record = place.run("Compare", "kept", METHODS_KEY, "['ZERO']", "TRAINER.ZERO.RULE", "margin")
    assert record["splits"]["test"]["parts"] == [["template", "ZERO+margin"]]


@pytest.mark.parametrize(
    ("trainer", "key", "value", "says"),
    (
        ("ZERO", "TRAINER.ZERO.RULE", "entropie", "TRAINER.ZERO.RULE 'entropie' is not a rule: did you mean"),
        ("TLLA", "TRAINER.TLLA.RULE", "tsallis(q=2)", "TRAINER.TLLA.RULE 'tsallis(q=2)': q must lie between"),
        ("Compare", RULES_KEY, "['best']", "TRAINER.COMPARE.RULES 'best' is not a rule"),
        ("Compare", RULES_KEY, "['tsallis', 'tsallis(q=0.1)']", "has the rule tsallis twice"),
    ),
)
def test_wrong_rules_are_named_by_their_key(place, capfd, trainer, key, value, says):
    assert says in fails(capfd, place.argv(trainer, "wrong", key, value))


def test_rules_without_a_method_that_chooses_views_are_refused(place, capfd):
    argv = place.argv("Compare", "wrong", METHODS_KEY, "['SingleView', 'MTA']", RULES_KEY, "['tsallis']")
    assert "none of TRAINER.COMPARE.METHODS (SingleView, MTA) chooses views" in fails(capfd, argv)


def test_a_record_without_a_rule_is_one_by_the_methods_own(tmp_path):
    assert Record(tmp_path, {}).rule == {"name": "", "own": True, "used_labels": False}


def test_settings_of_a_rule_are_typed_like_any_others():
    assert build_method("zero", {"rule": "tsallis(q=0.3)"}).build_rule() == RULES["tsallis"](q=0.3)
