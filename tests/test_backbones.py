"""Backbones: OpenAI's, the first and the last of each row, and one's own."""

import copy

import pytest
import torch
from conftest import CLASSNAMES, TINY_VIT, make_clip

from tlla.backbones import BACKBONES, Backbone, as_backbone, register_backbone
from tlla.backbones.openai_package import CLIP, clip
from tlla.backbones.resnet import is_plain_resnet
from tlla.clip import available_models, encode_images, image_size, load_clip
from tlla.errors import InputError
from tlla.prompts.templates import zeroshot_features

RESNET = (64, 64, (1, 2, 1, 1), 8, None, 77, 49408, 64, 1, 1)
VIT_B_32 = (512, 224, 2, 768, 32, 77, 49408, 512, 8, 1)  # of two layers instead of twelve, and of one
OPENAI = {  # arXiv 2103.00020, tables 19 and 20: E, pixels, text width, millions of parameters; then the constructor's
    "RN50": (1024, 224, 512, 102.0, (3, 4, 6, 3), 64, None),
    "RN50x64": (1024, 448, 1024, 623.3, (3, 15, 36, 10), 128, None),
    "ViT-B/32": (512, 224, 512, 151.3, 12, 768, 32),
    "ViT-B/16": (512, 224, 512, 149.6, 12, 768, 16),
    "ViT-L/14@336px": (768, 336, 768, 427.9, 24, 1024, 14),
}


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
@pytest.mark.parametrize("name", OPENAI)
def test_openais_architectures_are_recognised(name, monkeypatch):
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
    with pytest.raises(InputError, match="Linear is not a supported CLIP"):
        zeroshot_features(torch.nn.Linear(2, 2), CLASSNAMES, "a {}.")


@pytest.mark.parametrize(
    ("arch", "dtype", "tolerance"),
    # bfloat16 has 8 bits: norms in bfloat16 round once more than upstream's in float32
    [(TINY_VIT, torch.float32, 1e-6), (VIT_B_32, torch.float32, 1e-6), (TINY_VIT, torch.bfloat16, 2e-2)],
    ids=["tiny", "ViT-B/32", "tiny in bf16"],
)
def test_image_features_equal_openais_own(arch, dtype, tolerance):
    model = make_clip(arch)
    images = torch.randn(3, 3, arch[1], arch[1])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected, found = model.visual(images), as_backbone(model).encode_image(images)
    assert found.dtype == dtype and (found - expected).norm() < tolerance * expected.norm()


@pytest.fixture
def resnet():
    """A ModifiedResNet whose norms have seen images, and images."""
    model, generator = make_clip(RESNET), torch.Generator().manual_seed(0)
    for layer in model.visual.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values, least in ((layer.weight, 0.5), (layer.bias, -0.5), (layer.running_mean, -0.5)):
                values.data.copy_(least + torch.rand(values.shape, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=generator))
    return model, torch.randn(3, 3, 64, 64, generator=generator)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
def test_image_features_of_a_resnet_equal_openais_own(resnet, dtype, tolerance):
    model, images = resnet
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected, found = model.visual(images), as_backbone(model).encode_image(images)
    assert is_plain_resnet(model.visual)
    assert found.dtype == dtype and (found - expected).norm() < tolerance * expected.norm()


def test_gradients_of_images_through_a_resnet_equal_openais_own(resnet):
    model, images = resnet
    images = images.double().requires_grad_()
    model.double()
    expected = torch.autograd.grad(model.visual(images).square().sum(), images)
    found = torch.autograd.grad(as_backbone(model).encode_image(images).square().sum(), images)
    torch.testing.assert_close(found, expected)


def test_a_resnet_in_training_mode_uses_the_batchs_statistics(resnet):
    model, images = resnet
    expected = copy.deepcopy(model).train().visual(images)
    torch.testing.assert_close(as_backbone(model.train()).encode_image(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("names", (["cat"], ["cat", "catfish", "a cat and two dogs"], ["cat", "two dogs"]))
def test_texts_that_begin_alike_or_not_equal_openais_own(tiny_clip, names):
    tokens = clip.tokenize([f"a photo of {name}." for name in names])
    with torch.no_grad():
        expected = tiny_clip.encode_text(tokens)
        torch.testing.assert_close(as_backbone(tiny_clip).encode_tokens(tokens), expected, atol=1e-5, rtol=0)


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


def test_a_backbone_that_is_not_filled_in_says_so():
    with pytest.raises(NotImplementedError):
        Backbone().encode_image(torch.zeros(1, 3, 2, 2))
