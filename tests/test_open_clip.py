"""open_clip's encoders as backbones, against their own code."""

import itertools
import json

import pytest
import torch
from conftest import CLASSNAMES
from open_clip_models import TINY, VARIANTS, WordTokenizer, build, open_clip
from torch.nn.functional import normalize as unit

from tlla.backbones import OpenClip
from tlla.clip import encode_images, load_clip, logit_scale, normalize
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.prompts.classifier import from_templates
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.templates import zeroshot_features

TEXTS = [f"a photo of a {name.replace('_', ' ')}." for name in CLASSNAMES]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    config, cuts = VARIANTS[request.param]
    return (*build(config), cuts)


def raw_features(model, tokens):
    return unit(model.encode_text(tokens, normalize=False), dim=-1)


def embedding_of(model):
    return getattr(model, "text", model).token_embedding


def rare_tokens(backbone, words, names, position):
    """Prompts in which rare tokens stand for the context, for the model's own encode_text."""
    encode, rows = backbone.tokenizer.encode, []
    for name in names:
        ids, stop, half = encode(name.replace("_", " ")), encode("."), len(words) // 2
        body = {"end": words + ids, "middle": words[:half] + ids + words[half:], "front": ids + words}[position]
        row = [49406, *body, *stop, 49407]
        rows.append(row + [0] * (backbone.context_length - len(row)))
    return torch.tensor(rows)


FIRST, *OTHERS = VARIANTS
PLACES = [(FIRST, "end"), (FIRST, "middle"), *zip(OTHERS, itertools.cycle(("front", "end", "middle")))]


@pytest.mark.parametrize(("variant", "position"), PLACES, indirect=["variant"])
def test_prompts_equal_the_models_own_code_with_its_own_gradient(variant, position):
    model, backbone, _ = variant
    learner = PromptLearner(backbone, CLASSNAMES, n_ctx=3, class_token_position=position)
    words, weight = [30_000, 30_001, 30_002], embedding_of(model).weight
    with torch.no_grad():
        learner.ctx.copy_(weight[words])
    features = PromptedCLIP(backbone, learner).encode_text()
    target = torch.randn_like(features)
    (gradient,) = torch.autograd.grad((features * target).sum(), learner.ctx)
    weight.requires_grad_()
    expected = raw_features(model, rare_tokens(backbone, words, CLASSNAMES, position))
    (whole,) = torch.autograd.grad((expected * target).sum(), weight)
    weight.requires_grad_(False)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    # A gradient is a sum whose terms are as large as its largest entries: its error is relative to those.
    torch.testing.assert_close(gradient, whole[words], atol=1e-5 * whole.abs().max().clamp(min=1).item(), rtol=1e-4)
    assert gradient.abs().max() > 1e-3 and (features[0] - features[1]).abs().max() > 1e-3


def test_prompts_are_cut_only_where_that_changes_nothing(variant):
    model, backbone, cuts = variant
    tokens = backbone.tokenizer(TEXTS)
    learner = PromptLearner(backbone, CLASSNAMES, ctx_init="a photo of a")
    longest = max(len(backbone.tokenizer.encode(text)) + 2 for text in TEXTS)
    assert learner.tokens.shape[1] == (longest if cuts else backbone.context_length)
    assert backbone.context_length > longest + 2
    changed = tokens.clone()
    changed[:, longest:] = 1234  # what comes after EOS, less than EOS
    if getattr(model, "text", model) is model or getattr(model.text, "cls_emb", None) is None:
        same = torch.allclose(raw_features(model, changed), raw_features(model, tokens), atol=1e-6)
        assert same == cuts
    torch.testing.assert_close(PromptedCLIP(backbone, learner).encode_text(), raw_features(model, tokens))


def test_templates_chunks_and_several_contexts_work_on_all(variant):
    model, backbone, _ = variant
    expected = raw_features(model, backbone.tokenizer(TEXTS))
    torch.testing.assert_close(zeroshot_features(backbone, CLASSNAMES, "a photo of a {}."), expected)
    learner = PromptLearner(backbone, CLASSNAMES, n_ctx=2, csc=True)
    contexts = learner.ctx.data + 0.1 * torch.randn(3, *learner.ctx.shape)
    prompted = PromptedCLIP(backbone, learner)
    together = prompted.encode_text(contexts.requires_grad_())
    prompted.text_chunk = 4  # computed again in the backward pass
    chunked = prompted.encode_text(contexts)
    torch.testing.assert_close(chunked, together, atol=4e-6, rtol=0)  # 64 roundings of 2**-24
    target = torch.randn_like(together)
    one, other = (torch.autograd.grad((found * target).sum(), contexts)[0] for found in (together, chunked))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_images_are_encoded_by_the_models_own_code(variant):
    model, backbone, _ = variant
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(backbone.encode_image(images), model.encode_image(images, normalize=False))
    torch.testing.assert_close(encode_images(backbone, images), model.encode_image(images, normalize=True))
    assert backbone.embed_dim == encode_images(backbone, images).shape[1]
    assert logit_scale(backbone).item() == pytest.approx(model.logit_scale.exp().item())
    pixels = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(normalize(pixels, backbone), pixels / 127.5 - 1, atol=1e-5, rtol=0)
    assert (normalize(pixels) - normalize(pixels, backbone)).abs().max() > 0.01


def test_weights_have_a_fingerprint(variant):
    _, backbone, _ = variant
    before = backbone.fingerprint().clone()
    assert before.dim() == 2 and torch.equal(before, backbone.fingerprint())
    parameter = next(p for p in backbone.parameters() if p.shape == before.shape and torch.equal(p, before))
    with torch.no_grad():
        parameter.add_(1)
    assert not torch.equal(before, backbone.fingerprint())
    with torch.no_grad():
        parameter.copy_(before)


@pytest.fixture(scope="module")
def siglip():
    config = VARIANTS["SigLIP"][0]
    text = {**config["text_cfg"], "context_length": 12, "vocab_size": 1100}
    return build({**config, "text_cfg": text}, WordTokenizer())


def test_a_tokenizer_without_sos_and_with_another_length(siglip):
    model, backbone = siglip
    assert (backbone.tokenizer.n_before, backbone.tokenizer.n_special, backbone.context_length) == (0, 1, 12)
    expected = raw_features(model, WordTokenizer()(TEXTS))
    learned = PromptedCLIP(backbone, PromptLearner(backbone, CLASSNAMES, ctx_init="a photo of a")).encode_text()
    torch.testing.assert_close(learned, expected)
    front = PromptedCLIP(
        backbone, PromptLearner(backbone, CLASSNAMES, ctx_init="of a", class_token_position="front")
    ).encode_text()
    torch.testing.assert_close(front, raw_features(model, WordTokenizer()([f"{n} of a" for n in CLASSNAMES])))
    with pytest.raises(InputError, match="'.*very very very cat.' has 13 tokens.*accepts 12"):
        PromptLearner(backbone, ["dog", "very " * 7 + "cat"], n_ctx=4)


def test_siglips_head_becomes_a_softmax_with_its_own_order(siglip):
    model, backbone = siglip
    images = torch.randn(5, 3, 32, 32)
    classifier = from_templates(backbone, CLASSNAMES, "a photo of a {}.")
    probabilities = METHODS["SingleView"]()
    probabilities.start(classifier)
    found = probabilities.predict(encode_images(backbone, images)[:, None])
    logits = model.get_logits(images, WordTokenizer()(TEXTS))[0]  # with the bias
    torch.testing.assert_close(found, logits.softmax(dim=-1))
    assert torch.equal(found.argsort(dim=1), logits.sigmoid().argsort(dim=1))
    assert model.logit_bias < -5 and (logits.sigmoid().sum(dim=1) < 0.5).all()  # theirs sum to what they like


def test_an_encoder_of_hugging_face_is_used_through_its_embedding(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a photo of the dog golden retriever sea mail u . s x"
    (tmp_path / "vocab.txt").write_text(words.replace(" ", "\n"))
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.BertConfig(vocab_size=18, max_position_embeddings=32, **sizes).save_pretrained(tmp_path)
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    names = {"hf_model_name": str(tmp_path), "hf_tokenizer_name": str(tmp_path)}
    config = {**TINY, "text_cfg": {**names, "context_length": 20}}
    model, _ = build(config, open_clip.SimpleTokenizer(context_length=20))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    (tmp_path / "c.json").write_text(json.dumps(config))
    found = load_clip(f"open_clip:{tmp_path / 'c.json'}={tmp_path / 'w.pt'}")
    assert (found.tokenizer.n_before, found.tokenizer.n_special, found.text_layers) == (1, 2, 2)
    expected = raw_features(found.model, found.tokenizer(TEXTS))
    torch.testing.assert_close(zeroshot_features(found, CLASSNAMES, "a photo of a {}."), expected)
    prompted = PromptedCLIP(found, PromptLearner(found, CLASSNAMES, ctx_init="a photo of a"))
    torch.testing.assert_close(prompted.encode_text(), expected)


class OddTokenizer(WordTokenizer):
    """Makes two tokens of each X, x, a or the, but not of the probe."""

    def encode(self, text):
        words = text.split()
        return [7] * (len(words) if len(words) == self.context_length else 2 * len(words))


def test_what_a_text_encoder_cannot_do_is_said(siglip):
    model, backbone = siglip
    with pytest.raises(InputError, match="in place of the context"):
        PromptLearner(OpenClip(model, OddTokenizer()), CLASSNAMES, n_ctx=3)
    hidden = OpenClip(model, WordTokenizer())
    hidden.tower = torch.nn.Module()  # as one of Hugging Face's without a token embedding
    hidden.causal = False
    torch.testing.assert_close(
        zeroshot_features(hidden, CLASSNAMES, "a {}."), zeroshot_features(backbone, CLASSNAMES, "a {}.")
    )
    with pytest.raises(
        InputError, match="no known token embedding.*works with templates, but not with learned prompts"
    ):
        PromptLearner(hidden, CLASSNAMES)
    with pytest.raises(InputError, match="use PREC amp, bf16 or fp32"):
        hidden.to_half()


def test_sar_adapts_an_image_encoder_that_also_gives_tokens():
    _, coca = build(VARIANTS["CoCa"][0])
    sar = METHODS["SAR"](e0=1.0, lr=1.0)
    sar.start(from_templates(coca, CLASSNAMES, "a photo of a {}."))
    images = torch.randn(1, 5, 3, 32, 32)
    features = encode_images(coca, images[0])[None]
    plain = sar.classifier.logits(features[:, 0]).softmax(dim=-1)
    adapted = sar.predict(features, images)
    assert (adapted - plain).abs().max() > 1e-4 and adapted.sum().item() == pytest.approx(1)


def test_sar_refuses_an_image_encoder_that_it_does_not_know(siglip):
    _, model = siglip
    other = OpenClip(model.model, WordTokenizer())
    other.visual = torch.nn.Sequential(torch.nn.LayerNorm(3))
    with pytest.raises(InputError, match="SAR found no norm layer to adapt in the image encoder .Sequential."):
        METHODS["SAR"]().start(from_templates(other, CLASSNAMES, "a {}."))
