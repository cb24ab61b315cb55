"""The text side of test-time methods: templates with and without words, ensembles, learned and conditional prompts."""

import pytest
import torch
from conftest import CLASSNAMES
from torch.nn.functional import normalize

from tlla.backbones.openai_package import clip
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.prompts.classifier import Classifier, ConditionalClassifier, PromptClassifier, from_templates
from tlla.prompts.conditional import ConditionalCLIP, ConditionalPromptLearner
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.templates import ENSEMBLES


def encoded(model, template):
    """Normalised features by OpenAI's own encode_text."""
    tokens = clip.tokenize([template.format(name.replace("_", " ")) for name in CLASSNAMES])
    with torch.no_grad():
        return normalize(model.encode_text(tokens), dim=-1)


@pytest.mark.parametrize(
    "template",
    ("a photo of a {}.", "a photo of a {}, a type of pet.", "itap of a {}", "the origami {}.", "a ({}) thing!", "{}"),
)
def test_a_template_is_encoded_as_by_openai(tiny_clip, template):
    classifier = from_templates(tiny_clip, CLASSNAMES, template)
    torch.testing.assert_close(classifier.text_features, encoded(tiny_clip, template), atol=1e-5, rtol=0)
    assert classifier.tunable == (template != "{}")


def test_a_templates_words_are_its_context(tiny_clip):
    classifier = from_templates(tiny_clip, CLASSNAMES, "a photo of a {}, a type of pet.")
    words = tiny_clip.token_embedding(clip.tokenize("a photo of a")[0, 1:5])
    contexts = classifier.context(torch.zeros(3, 2, 32))
    assert torch.equal(contexts, words.expand(3, -1, -1))
    torch.testing.assert_close(classifier.encode(contexts)[2], classifier.text_features)


def test_an_ensemble_is_the_normalised_mean_of_normalised_features(tiny_clip):
    templates = ENSEMBLES["imagenet7"]
    classifier = from_templates(tiny_clip, CLASSNAMES, templates)
    mean = sum(encoded(tiny_clip, t) for t in templates) / 7
    torch.testing.assert_close(classifier.text_features, mean / mean.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)


def test_the_ensembles_are_complete():
    assert {name: len(templates) for name, templates in ENSEMBLES.items()} == {"imagenet80": 80, "imagenet7": 7}
    assert all(t.count("{}") == 1 for templates in ENSEMBLES.values() for t in templates)
    assert set(ENSEMBLES["imagenet7"]) <= set(ENSEMBLES["imagenet80"])


def test_a_conditional_context_comes_from_the_plain_view(tiny_clip):
    learner = ConditionalPromptLearner(tiny_clip, CLASSNAMES, n_ctx=2)
    classifier = ConditionalClassifier(ConditionalCLIP(tiny_clip, learner))
    features = normalize(torch.randn(3, 4, 32), dim=-1)
    text = classifier.text(features)
    for b in range(3):
        context = learner.ctx + learner.meta_net(features[b, :1])
        expected = PromptedCLIP(tiny_clip, learner).encode_text(context)
        torch.testing.assert_close(text[b], expected.detach(), atol=1e-5, rtol=0)
    assert not torch.allclose(text[0], text[1])


def test_what_the_methods_get_of_a_prompt_is_its_own_copy(tiny_clip):
    learner = PromptLearner(tiny_clip, CLASSNAMES, n_ctx=2)
    classifier = PromptClassifier(PromptedCLIP(tiny_clip, learner))
    before = classifier.fingerprint().clone()
    with torch.no_grad():
        learner.ctx += 1
    assert torch.equal(classifier.fingerprint(), before)


@pytest.mark.parametrize("name", sorted(n for n, m in METHODS.items() if m.needs_text_encoder))
def test_methods_that_change_the_prompt_refuse_features_alone(name):
    fixed = Classifier(normalize(torch.randn(4, 32), dim=-1), 100.0)
    with pytest.raises(InputError, match="context vectors"):
        METHODS[name]().start(fixed)


@pytest.mark.parametrize(
    "name", sorted(n for n, m in METHODS.items() if not m.needs_text_encoder and not m.needs_images)
)
def test_all_other_methods_work_on_features_alone(name):
    text = normalize(torch.randn(4, 32), dim=-1)
    method = METHODS[name]()
    method.start(Classifier(text, 100.0))
    method.n_images, features = 3, normalize(torch.randn(3, 20, 32), dim=-1)
    with torch.no_grad():
        method.observe(features)
        probability = method.predict(features)
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(3))


def test_a_template_needs_one_place_for_the_name(tiny_clip):
    for template in ("a photo of a dog.", "{} and {}"):
        with pytest.raises(InputError, match="no {} for the class name, or more than one"):
            from_templates(tiny_clip, CLASSNAMES, template)
