"""Backbones: OpenAI's nine, models of open_clip against their own code and against OpenAI's, and one's own."""

import json
import math
import sys
import warnings

import pytest
import torch
from benchmark import Workplace
from clip.model import CLIP
from conftest import CLASSNAMES, TINY_RESNET, TINY_VIT, make_clip
from test_clip import RunsCode
from torch.nn.functional import normalize as unit

import train
from tlla.backbones import BACKBONES, Backbone, OpenClip, as_backbone, register_backbone
from tlla.classifier import from_templates
from tlla.clip import available_models, encode_images, image_size, load_clip, logit_scale, normalize
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.prompt import PromptedCLIP, PromptLearner, zeroshot_features

TEXTS = [f"a photo of a {name.replace('_', ' ')}." for name in CLASSNAMES]
OPENAI = {  # arXiv 2103.00020, tables 19 and 20: E, pixels, text width, millions of parameters; then the constructor's
    "RN50": (1024, 224, 512, 102.0, (3, 4, 6, 3), 64, None),
    "RN101": (512, 224, 512, 119.7, (3, 4, 23, 3), 64, None),
    "RN50x4": (640, 288, 640, 178.3, (4, 6, 10, 6), 80, None),
    "RN50x16": (768, 384, 768, 291.0, (6, 8, 18, 8), 96, None),
    "RN50x64": (1024, 448, 1024, 623.3, (3, 15, 36, 10), 128, None),
    "ViT-B/32": (512, 224, 512, 151.3, 12, 768, 32),
    "ViT-B/16": (512, 224, 512, 149.6, 12, 768, 16),
    "ViT-L/14": (768, 224, 768, 427.6, 24, 1024, 14),
    "ViT-L/14@336px": (768, 336, 768, 427.9, 24, 1024, 14),
}


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
@pytest.mark.parametrize("name", OPENAI)
def test_all_of_openais_architectures_are_recognised(name, monkeypatch):
    embed_dim, size, width, millions, layers, vision_width, patch = OPENAI[name]
    with torch.device("meta"):  # shapes alone: RN50x64 has 2.5 GB
        state = CLIP(embed_dim, size, layers, vision_width, patch, 77, 49408, width, width // 64, 12).state_dict()
        monkeypatch.setattr("tlla.clip.find_weights", lambda found, known: found)
        monkeypatch.setattr("tlla.clip.read_state_dict", lambda path: state)
        model = load_clip(name, "meta")
    assert name in available_models() and model.name == name
    assert (image_size(model), model.embed_dim, model.context_length, model.text_layers) == (size, embed_dim, 77, 12)
    assert model.token_weight.shape == (49408, width)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


def test_openais_model_is_used_as_it_is(tiny_clip):
    view = as_backbone(tiny_clip)
    assert isinstance(view, CLIP) and as_backbone(view) is view and view.visual is tiny_clip.visual
    assert dict(view.named_parameters()).keys() == dict(tiny_clip.named_parameters()).keys()
    assert all(a is b for a, b in zip(view.parameters(), tiny_clip.parameters(), strict=True))
    assert view.train() and tiny_clip.training and tiny_clip.visual.training  # one model, one mode
    view.eval()
    with pytest.raises(InputError, match="Linear is no CLIP that is known here"):
        zeroshot_features(torch.nn.Linear(2, 2), CLASSNAMES, "a {}.")


def test_a_registered_backbone_has_a_name(monkeypatch, tiny_clip):
    monkeypatch.setattr("tlla.backbones.registry.BACKBONES", BACKBONES)
    asked = []

    @register_backbone("my_clip")
    def load(variant):
        asked.append(variant)
        return make_clip(TINY_VIT)

    try:
        model = load_clip("my_clip:large")
        load_clip("my_clip")
        assert asked == ["large", ""] and model.name == "my_clip:large" and "my_clip" in available_models()
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(encode_images(model, images), encode_images(tiny_clip, images))
        with pytest.raises(InputError, match="did you mean 'my_clip'"):
            load_clip("myclip")
    finally:
        del BACKBONES["my_clip"]


# From here on all is about open_clip.

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed: pip install 'tlla[open_clip]'")

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
TINY = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
RN = {**TINY, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}}
SHORT = {**TEXT, "context_length": 20}
MULTIMODAL = {"context_length": 20, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
VARIANTS = {  # a config, and whether prompts may be cut
    "as OpenAI's": (TINY, True),
    "text encoder apart": ({**TINY, "custom_text": True}, True),
    "read at a fixed EOS": ({**TINY, "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407}}, True),
    "projection with bias": ({**TINY, "custom_text": True, "text_cfg": {**SHORT, "proj_bias": True}}, True),
    "GELU, no projection": (
        {**TINY, "embed_dim": 64, "quick_gelu": False, "text_cfg": {**TEXT, "proj_type": "none"}},
        True,
    ),
    "no mask": ({**TINY, "text_cfg": {**SHORT, "no_causal_mask": True}}, False),
    "SigLIP": (
        {
            **TINY,
            "custom_text": True,
            "init_logit_bias": -10,
            "text_cfg": {**SHORT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        },
        False,
    ),
    "causal, read at the last token": ({**TINY, "text_cfg": {**SHORT, "pool_type": "last"}}, False),
    "CoCa": (
        {
            **TINY,
            "custom_text": True,
            "multimodal_cfg": MULTIMODAL,
            "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 1, "output_tokens": True},
            "text_cfg": {**SHORT, "embed_cls": True, "output_tokens": True},
        },
        False,
    ),
}


def build(config, tokenizer=None):
    """A model of open_clip with random weights, made by open_clip, and as a backbone."""
    from tlla.backbones.openclip_load import _build

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = _build(dict(config), half=False).eval().requires_grad_(False)
        with torch.no_grad():  # biases are 0 at first, and would hide their loss
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    open_clip.model.set_model_preprocess_cfg(model, {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    length = config["text_cfg"]["context_length"]
    return model, OpenClip(model, tokenizer or open_clip.SimpleTokenizer(context_length=length))


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


@pytest.mark.parametrize("position", ("end", "middle", "front"))
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
    torch.testing.assert_close(gradient, whole[words], atol=1e-5, rtol=1e-4)
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
    torch.testing.assert_close(chunked, together, atol=1e-6, rtol=0)
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


class WordTokenizer:
    """As SigLIP's: no SOS, EOS and padding by the same token, lower case, no punctuation."""

    def __init__(self, context_length=12):
        self.context_length = context_length

    def encode(self, text):
        words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return [2 + int.from_bytes(word.encode()[:2]) % 1000 for word in words]

    def __call__(self, texts):
        rows = [self.encode(text)[: self.context_length - 1] + [1] for text in texts]
        return torch.tensor([row + [1] * (self.context_length - len(row)) for row in rows])


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
    with pytest.raises(InputError, match="'.*very very very cat.' has 13 tokens.*takes 12"):
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
    with pytest.raises(InputError, match="no place for the context"):
        PromptLearner(OpenClip(model, OddTokenizer()), CLASSNAMES, n_ctx=3)
    hidden = OpenClip(model, WordTokenizer())
    hidden.tower = torch.nn.Module()  # as one of Hugging Face's without a token embedding
    hidden.causal = False
    torch.testing.assert_close(
        zeroshot_features(hidden, CLASSNAMES, "a {}."), zeroshot_features(backbone, CLASSNAMES, "a {}.")
    )
    with pytest.raises(InputError, match="no token embedding.*takes templates, but no learned prompts"):
        PromptLearner(hidden, CLASSNAMES)
    with pytest.raises(InputError, match="use PREC amp, bf16 or fp32"):
        hidden.to_half()


# Files and names.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with OpenAI's weights of the tiny ViT and the architecture as open_clip's config."""
    folder = tmp_path_factory.mktemp("open_clip")
    state = make_clip(TINY_VIT).state_dict()
    torch.save(state, folder / "vit.pt")
    entries = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    torch.save({**state, **{name: torch.tensor(value) for name, value in entries.items()}}, folder / "openai.pt")
    (folder / "vit.json").write_text(json.dumps(TINY))
    (folder / "gelu.json").write_text(json.dumps({**TINY, "quick_gelu": False}))
    return folder


@pytest.fixture
def tiny_names(monkeypatch, place):
    """Some of open_clip's names, with tiny architectures, and its downloads served from the folder."""
    known = open_clip.factory._MODEL_CONFIGS
    for name in ("ViT-B-32", "ViT-H-14", "ViT-B-16-SigLIP"):
        monkeypatch.setitem(known, name, {**TINY, "quick_gelu": False})
    monkeypatch.setitem(known, "ViT-B-32-quickgelu", TINY)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *args, **kwargs: str(place / "vit.pt"))
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: open_clip.SimpleTokenizer(context_length=77))
    return place


def difference(found, other):
    """Of the features of an image and a text under two models."""
    images, tokens = torch.randn(2, 3, 32, 32), open_clip.tokenize(["a dog"])
    image = (encode_images(found, images) - encode_images(other, images)).abs().max()
    theirs = other.encode_text(tokens) if isinstance(other, CLIP) else other.model.encode_text(tokens)
    text = unit(found.encode_tokens(tokens), dim=-1) - unit(theirs, dim=-1)
    return max(image.item(), text.abs().max().item())


@pytest.mark.parametrize(("arch", "config"), [(TINY_VIT, TINY), (TINY_RESNET, RN)])
@pytest.mark.parametrize("suffix", ("pt", "safetensors"))
def test_weights_of_openai_give_its_features_through_open_clip(tmp_path, arch, config, suffix):
    model = make_clip(arch)
    (tmp_path / "c.json").write_text(json.dumps(config))
    path = tmp_path / f"w.{suffix}"
    if suffix == "pt":
        torch.save(model.state_dict(), path)
    else:
        pytest.importorskip("safetensors.torch").save_file(model.state_dict(), path)
    found = load_clip(f"open_clip:{tmp_path / 'c.json'}={path}")
    assert difference(found, model) < 1e-5
    assert (image_size(found), found.embed_dim, found.causal) == (32, 32, True)
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def test_a_file_in_the_older_layout_fills_a_text_encoder_apart(place, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({**TINY, "custom_text": True, "nonscalar_logit_scale": True}))
    found, model = load_clip(f"open_clip:{tmp_path / 'c.json'}={place / 'vit.pt'}"), make_clip(TINY_VIT)
    assert difference(found, model) < 1e-5
    assert found.logit_scale.shape == (1,) and torch.equal(logit_scale(found), model.logit_scale.exp())


def test_a_real_vit_b32_gives_openais_logits_prompts_and_gradients(monkeypatch):
    model = make_clip((512, 224, 12, 768, 32, 77, 49408, 512, 8, 12))
    monkeypatch.setattr("tlla.backbones.openclip_load.read_state_dict", lambda path: dict(model.state_dict()))
    found = load_clip(f"open_clip:ViT-B-32-quickgelu={__file__}")
    results = []
    images, target = torch.randn(2, 3, 224, 224), torch.randn(len(CLASSNAMES), 512)
    for clip_model in (found, model):
        torch.manual_seed(1)
        prompted = PromptedCLIP(clip_model, PromptLearner(clip_model, CLASSNAMES, n_ctx=4))
        features = prompted.encode_text()
        (gradient,) = torch.autograd.grad((features * target).sum(), prompted.prompt_learner.ctx)
        written = zeroshot_features(clip_model, CLASSNAMES, "a photo of a {}.")
        logits = prompted.logits(prompted.encode_image(images), written)
        results.append((features.detach(), gradient, written, logits))
    for name, ours, theirs in zip(("features", "gradient", "template", "logits"), *results, strict=True):
        bound = 1e-5 * max(1, theirs.abs().max().item())
        assert (ours - theirs).abs().max() < bound, name


def test_tags_say_the_activation(tiny_names):
    model = make_clip(TINY_VIT)
    for name in ("ViT-B-32/openai", "ViT-B-32-quickgelu/openai", f"ViT-B-32/openai={tiny_names / 'vit.pt'}"):
        assert difference(load_clip(f"open_clip:{name}"), model) < 1e-5, name
    gelu = load_clip("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert difference(gelu, model) > 1e-4
    file = load_clip(f"open_clip:ViT-B-32/laion2b_s34b_b79k={tiny_names / 'vit.pt'}")
    assert difference(file, gelu) < 1e-6


def test_a_file_of_unknown_activation_is_warned_of(tiny_names):
    with pytest.warns(UserWarning, match="taken for weights trained with GELU.*openai.*<tag>="):
        load_clip(f"open_clip:ViT-B-32={tiny_names / 'vit.pt'}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_clip(f"open_clip:ViT-B-32-quickgelu={tiny_names / 'openai.pt'}")
        load_clip(f"open_clip:{tiny_names / 'vit.json'}={tiny_names / 'openai.pt'}")
    assert difference(found, make_clip(TINY_VIT)) < 1e-5


def test_preprocessing_is_the_models_own(tiny_names, tmp_path):
    with pytest.warns(UserWarning, match="resized by 'squash' .bicubic.; here the short side"):
        siglip = load_clip(f"open_clip:ViT-B-16-SigLIP={tiny_names / 'vit.pt'}")
    assert siglip.preprocessing.mean == siglip.preprocessing.std == (0.5, 0.5, 0.5)
    plain = load_clip(f"open_clip:ViT-B-32/openai={tiny_names / 'vit.pt'}")
    assert plain.preprocessing == as_backbone(make_clip(TINY_VIT)).preprocessing
    with pytest.raises(InputError, match="differ in the preprocessing.*<tag>=.*dfn5b"):
        open_clip_two_means(tiny_names)
    content = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    own = load_clip(f"open_clip:{tmp_path / 'open_clip_config.json'}={tiny_names / 'vit.pt'}")
    assert own.preprocessing.mean == (0.1, 0.2, 0.3) and own.preprocessing.std == (0.5, 0.6, 0.7)


def open_clip_two_means(place):
    """Loads a file of a name whose tags were trained with different means."""
    tag = {**open_clip.get_pretrained_cfg("ViT-H-14", "dfn5b"), "mean": (0.5, 0.5, 0.5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.pretrained._PRETRAINED["ViT-H-14"], "dfn5b", tag)
        load_clip(f"open_clip:ViT-H-14={place / 'vit.pt'}")


BAD = {
    "ViT-B-32": "says no weights: write .*ViT-B-32 has the tags openai",
    "": "no model ''",
    "ViT-B-33/openai": "no model 'ViT-B-33': did you mean 'ViT-B-32'",
    "ViT-B-32/opnai": "no weights 'opnai' of ViT-B-32: did you mean 'openai'",
    "ViT-B-32={}/none.pt": "there is no file .*none.pt",
    "ViT-B-32=": "says no weights",
    "{}/none.json={}/vit.pt": "none.json cannot be read as a model config",
    "{}/broken.json={}/vit.pt": "broken.json cannot be read as a model config",
    "{}/list.json={}/vit.pt": "needs embed_dim, vision_cfg and text_cfg",
    "{}/strange.json={}/vit.pt": "cannot load .*'colour'",
    "{}/wide.json={}/vit.pt": "wide.pt|does not fit the architecture .*of another shape",
    "{}/deep.json={}/vit.pt": "does not fit the architecture .*missing, such as transformer.resblocks.2",
    "{}/vit.json={}/deep.pt": "does not fit the architecture .*unknown, such as extra",
    "{}/vit.json={}/evil.pt": "evil.pt holds more than tensors",
    "{}/vit.json={}/cut.safetensors": "cut.safetensors .* cannot be read as CLIP weights",
    "{}/gelu.json={}/openai.pt": 'openai.pt is OpenAI\'s and needs QuickGELU.*"quick_gelu": true',
    "ViT-B-32={}/openai.pt": "openai.pt is OpenAI's and needs QuickGELU.*use ViT-B-32-quickgelu",
    "hf-hub:someone/clip={}/vit.pt": "names a repository and a file",
    "{}/flat.json={}/vit.pt": "only square ones are made here",
}


@pytest.fixture(scope="module")
def bad_files(place):
    wide = {**TINY, "text_cfg": {**TEXT, "width": 128, "heads": 2}}
    configs = {
        "list": [1],
        "strange": {**TINY, "colour": 1},
        "wide": wide,
        "deep": {**TINY, "text_cfg": {**TEXT, "layers": 3}},
        "flat": {**TINY, "vision_cfg": {**VISION, "image_size": [16, 64]}},
    }
    for name, content in configs.items():
        (place / f"{name}.json").write_text(json.dumps(content))
    (place / "broken.json").write_text("{")
    torch.save({"state_dict": RunsCode(place / "hacked")}, place / "evil.pt")
    (place / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    torch.save({**make_clip(TINY_VIT).state_dict(), "extra": torch.zeros(1)}, place / "deep.pt")
    return place


@pytest.mark.filterwarnings("ignore:.*is taken for weights")
@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_loaded_is_named_in_one_sentence(bad_files, text):
    with pytest.raises(InputError, match=BAD[text]):
        load_clip("open_clip:" + text.replace("{}", str(bad_files)))
    assert not (bad_files / "hacked").exists()


def test_a_download_that_fails_is_said(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", fail)
    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", fail)
    for name in ("ViT-B-32/openai", "hf-hub:someone/clip"):
        with pytest.raises(InputError, match="open_clip cannot load .*no route to host"):
            load_clip(f"open_clip:{name}")


def test_weights_of_a_tag_that_need_gelu_are_refused_by_a_quickgelu_model(monkeypatch, place):
    tags = open_clip.pretrained._PRETRAINED["ViT-B-32-quickgelu"]
    monkeypatch.setitem(tags, "plain", {**tags["openai"], "quick_gelu": False})
    with pytest.raises(
        InputError, match="plain were trained with GELU, ViT-B-32-quickgelu has QuickGELU: use ViT-B-32"
    ):
        load_clip(f"open_clip:ViT-B-32-quickgelu/plain={place / 'vit.pt'}")


def test_without_open_clip_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tlla.backbones.openclip_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"open_clip is not installed .*pip install 'tlla\[open_clip\]'"):
        load_clip("open_clip:ViT-B-32/openai")


def test_fp16_weights_are_near(place):
    from tlla.backbones.openclip_load import load_open_clip

    name = f"{place / 'vit.json'}={place / 'vit.pt'}"
    half, full = load_open_clip(name, half=True).eval(), load_open_clip(name).eval()
    assert (half.dtype, full.dtype) == (torch.float16, torch.float32)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        prompts = [
            PromptedCLIP(m, PromptLearner(m, CLASSNAMES, ctx_init="a photo of")).encode_text() for m in (half, full)
        ]
        for ours, theirs in (prompts, (encode_images(half, images), encode_images(full, images))):
            assert ours.dtype == torch.float32
            assert 0 < (ours - theirs).abs().max() < 5e-3


# Trainers.


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "vit.json").write_text(json.dumps(TINY))
    return Workplace(folder)


def backbone(workplace, config="vit.json"):
    return f"open_clip:{workplace.folder / config}={workplace.folder / 'clip.pt'}"


def test_training_and_tests_equal_those_with_openais_code(workplace):
    """SAPT, then TLLA on its prompt, in both; also the record, and that a prompt of other weights is refused."""
    for output, more in (("ours", ()), ("theirs", ("--backbone", backbone(workplace)))):
        workplace.run("SAPT", f"{output}/SAPT", *more, "OPTIM.LR", "0.002")  # at 0.1 it grows, and rounding with it
        model_dir = str(workplace.folder / output / "SAPT")
        workplace.run("TLLA", f"{output}/TLLA", *more, "--eval-only", "--model-dir", model_dir)
    moved = workplace.context("ours/SAPT")  # from 0.02 to 0.8
    torch.testing.assert_close(workplace.context("theirs/SAPT"), moved, atol=1e-3, rtol=0)
    columns = [
        [line.split(",")[:3] for line in workplace.predictions(f"{output}/TLLA").splitlines()]
        for output in ("ours", "theirs")
    ]
    assert columns[0] == columns[1]
    record = json.loads((workplace.folder / "theirs/SAPT/results.json").read_text())
    assert record["backbone"] == backbone(workplace)


@pytest.mark.parametrize("trainer", ("ZeroshotCLIP", "CoCoOp", "SAR", "TipAdapter", "TPT"))
def test_all_kinds_of_trainers_take_it(workplace, trainer):
    ours = workplace.run(trainer, f"ours/{trainer}")["splits"]["test"]
    theirs = workplace.run(trainer, f"theirs/{trainer}", "--backbone", backbone(workplace))["splits"]["test"]
    assert theirs["nll"] == pytest.approx(ours["nll"], abs=2e-3) and math.isfinite(ours["nll"])


def test_a_config_with_other_pixels_than_the_models_is_refused(workplace, capfd):
    content = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (workplace.folder / "grey.json").write_text(json.dumps(content))
    argv = workplace.argv("ZeroshotCLIP", "grey", "--backbone", backbone(workplace, "grey.json"))
    assert train.main(argv) == 2
    assert 'add INPUT.PIXEL_MEAN "[0.5, 0.5, 0.5]"' in capfd.readouterr().err
    pixels = ("INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]", "INPUT.PIXEL_STD", "[0.5, 0.5, 0.5]")
    nll = {}
    for name, more in (("vit.json", ()), ("grey.json", pixels)):
        for trainer in ("ZeroshotCLIP", "SingleView"):  # by the config's transforms, and by views
            output = f"pixels/{name}/{trainer}"
            record = workplace.run(trainer, output, "--backbone", backbone(workplace, name), *more)
            nll[name, trainer] = record["splits"]["test"]["nll"]
        assert nll[name, "ZeroshotCLIP"] == pytest.approx(nll[name, "SingleView"], abs=1e-5)
    assert nll["vit.json", "ZeroshotCLIP"] != pytest.approx(nll["grey.json", "ZeroshotCLIP"], abs=1e-3)


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


def test_a_backbone_that_is_not_filled_in_says_so():
    with pytest.raises(NotImplementedError):
        Backbone().encode_image(torch.zeros(1, 3, 2, 2))
