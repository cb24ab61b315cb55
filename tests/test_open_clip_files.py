"""open_clip's files, names and tags: what is loaded, and what is refused."""

import copy
import json
import sys
import warnings

import pytest
import torch
from conftest import CLASSNAMES, TINY_RESNET, TINY_VIT, make_clip
from open_clip_models import RN, TEXT, TINY, VISION, open_clip
from test_clip import RunsCode
from torch.nn.functional import normalize as unit

from tlla.backbones import as_backbone
from tlla.backbones.openai_package import CLIP
from tlla.clip import encode_images, image_size, load_clip, logit_scale
from tlla.errors import InputError
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.templates import zeroshot_features


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
    monkeypatch.setattr("open_clip.get_tokenizer", lambda name: open_clip.SimpleTokenizer(context_length=77))
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
    """Of one layer instead of twelve in each encoder."""
    config = copy.deepcopy(open_clip.get_model_config("ViT-B-32-quickgelu"))
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 1
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", config)
    model = make_clip((512, 224, 1, 768, 32, 77, 49408, 512, 8, 1))
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
    with pytest.warns(UserWarning, match="assumed to be trained with GELU.*openai.*<tag>="):
        load_clip(f"open_clip:ViT-B-32={tiny_names / 'vit.pt'}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_clip(f"open_clip:ViT-B-32-quickgelu={tiny_names / 'openai.pt'}")
        load_clip(f"open_clip:{tiny_names / 'vit.json'}={tiny_names / 'openai.pt'}")
    assert difference(found, make_clip(TINY_VIT)) < 1e-5


def test_preprocessing_is_the_models_own(tiny_names, tmp_path):
    with pytest.warns(UserWarning, match="resized by 'squash' .bicubic., but here the short side"):
        siglip = load_clip(f"open_clip:ViT-B-16-SigLIP={tiny_names / 'vit.pt'}")
    assert siglip.preprocessing.mean == siglip.preprocessing.std == (0.5, 0.5, 0.5)
    plain = load_clip(f"open_clip:ViT-B-32/openai={tiny_names / 'vit.pt'}")
    assert plain.preprocessing == as_backbone(make_clip(TINY_VIT)).preprocessing
    with pytest.raises(InputError, match="differ in their preprocessing.*<tag>=.*dfn5b"):
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
    "ViT-B-32": "names no weights: write .*ViT-B-32 has the tags openai",
    "": "no model ''",
    "ViT-B-33/openai": "no model 'ViT-B-33': did you mean 'ViT-B-32'",
    "ViT-B-32/opnai": "no weights 'opnai' of ViT-B-32: did you mean 'openai'",
    "ViT-B-32={}/none.pt": "none.pt, but there is no such file",
    "ViT-B-32=": "names no weights",
    "{}/none.json={}/vit.pt": "none.json cannot be read as a model config",
    "{}/broken.json={}/vit.pt": "broken.json cannot be read as a model config",
    "{}/list.json={}/vit.pt": "needs embed_dim, vision_cfg and text_cfg",
    "{}/strange.json={}/vit.pt": "cannot load .*'colour'",
    "{}/wide.json={}/vit.pt": "wide.pt|does not fit the architecture .*of another shape",
    "{}/deep.json={}/vit.pt": "does not fit the architecture .*missing, such as transformer.resblocks.2",
    "{}/vit.json={}/deep.pt": "does not fit the architecture .*unknown, such as extra",
    "{}/vit.json={}/evil.pt": "evil.pt holds more than tensors",
    "{}/vit.json={}/cut.safetensors": "cut.safetensors .* cannot be read as CLIP weights",
    "{}/gelu.json={}/openai.pt": 'openai.pt is from OpenAI and needs QuickGELU.*"quick_gelu": true',
    "ViT-B-32={}/openai.pt": "openai.pt is from OpenAI and needs QuickGELU.*use ViT-B-32-quickgelu",
    "hf-hub:someone/clip={}/vit.pt": "names a repository and a file",
    "{}/flat.json={}/vit.pt": "only square ones are supported",
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


@pytest.mark.filterwarnings("ignore:.*is assumed to be trained")
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
    with pytest.raises(InputError, match=r"open_clip is not installed .*pip install open_clip_torch"):
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
