"""Loading CLIP weights: every format that exists, and what is said of every file that is none."""

import gzip
import hashlib
import io
import json
import os

import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, make_clip

from tlla.backbones.openai_package import clip
from tlla.backbones.weight_names import check_names
from tlla.clip import available_models, find_weights, image_size, load_clip, normalize
from tlla.errors import InputError
from tlla.prompts.checkpoint import read_checkpoint
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP


class RunsCode:
    """Would create a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(("arch", "dtype"), ((TINY_VIT, torch.float32), (TINY_RESNET, torch.float16)))
def test_a_state_dict_keeps_its_values(tmp_path, arch, dtype):
    model = make_clip(arch)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save(state, tmp_path / "clip.pt")
    loaded = load_clip(str(tmp_path / "clip.pt"))
    assert image_size(loaded) == 32
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}  # on the CPU everything is fp32
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype)), name


@pytest.mark.filterwarnings("ignore")  # tracing is noisy
def test_a_jit_archive_gives_the_same_features(tmp_path):
    model = make_clip(TINY_VIT)
    images, tokens = torch.randn(2, 3, 32, 32), clip.tokenize(["a dog", "a cat"])
    torch.jit.save(torch.jit.trace(model, (images, tokens)), tmp_path / "jit.pt")
    loaded = load_clip(str(tmp_path / "jit.pt"))
    torch.testing.assert_close(loaded(images, tokens)[0], model(images, tokens)[0])


def test_a_gzipped_state_dict_loads(tmp_path):
    state, buffer = make_clip(TINY_VIT).state_dict(), io.BytesIO()
    torch.save(state | {"token_embedding.weight": torch.zeros(49408, 64)}, buffer)  # packed in no time
    (tmp_path / "clip.pt.gz").write_bytes(gzip.compress(buffer.getvalue(), 1))
    assert image_size(load_clip(str(tmp_path / "clip.pt.gz"))) == 32


def test_names_are_openais_and_the_embedded_one():
    assert {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14"} < set(
        available_models()
    )
    assert "EmojiCLIP" in available_models()


def test_a_mistyped_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"no CLIP named 'ViT-B16'.*did you mean 'ViT-B/16'"):
        load_clip("ViT-B16")


def test_without_network_the_error_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(
        InputError, match=r"not at .*ViT-B-16.pt and could not be downloaded \(no route\).*put it there"
    ):
        load_clip("ViT-B/16")
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


@pytest.fixture
def fake_openai(monkeypatch, tmp_path):
    """A small stand-in for one of OpenAI's files, served in place of the network; returns (cache folder, bytes)."""
    buffer = io.BytesIO()
    torch.save(make_clip(TINY_VIT).state_dict(), buffer)
    data = buffer.getvalue()
    monkeypatch.setitem(clip._MODELS, "ViT-B/16", f"https://example.org/{hashlib.sha256(data).hexdigest()}/ViT-B-16.pt")
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path))

    class Response(io.BytesIO):
        headers = {"Content-Length": str(len(data))}

    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: Response(data))
    return tmp_path, data, Response


def test_a_named_model_is_downloaded_once_and_checked(fake_openai, monkeypatch):
    folder, data, _ = fake_openai
    assert image_size(load_clip("ViT-B/16")) == 32
    assert [p.name for p in folder.iterdir() if p.suffix != ".lock"] == ["ViT-B-16.pt"]
    monkeypatch.setattr("urllib.request.urlopen", None)  # a second download would fail
    assert find_weights("ViT-B/16").read_bytes() == data


def test_a_download_cut_short_leaves_nothing(fake_openai, monkeypatch):
    folder, data, response = fake_openai
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: response(data[:1000]))
    with pytest.raises(InputError, match="1,000 bytes"):
        load_clip("ViT-B/16")
    assert [p.name for p in folder.iterdir() if p.suffix != ".lock"] == []


def test_a_wrong_checksum_is_reported_and_the_file_kept(fake_openai):
    folder, data, _ = fake_openai
    (folder / "ViT-B-16.pt").write_bytes(data[:5000])
    with pytest.raises(InputError, match=r"ViT-B-16.pt is not OpenAI's ViT-B/16 or is incomplete: 5,000 bytes"):
        load_clip("ViT-B/16")
    assert (folder / "ViT-B-16.pt").stat().st_size == 5000


def test_bad_files_are_named(tmp_path):
    state = make_clip(TINY_VIT).state_dict()
    torch.save(state, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:20_000])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    (tmp_path / "cut.pt.gz").write_bytes(gzip.compress(b"x" * 100)[:-10])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({k: v for k, v in state.items() if k != "text_projection"}, tmp_path / "missing.pt")
    for name in ("cut.pt", "empty.pt", "page.pt", "cut.pt.gz", "other.pt", "list.pt", "missing.pt"):
        with pytest.raises(InputError, match=name):
            load_clip(str(tmp_path / name))
    with pytest.raises(InputError, match="is a folder"):
        load_clip(str(tmp_path))


def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path):
    torch.save({"state_dict": RunsCode(tmp_path / "hacked")}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="evil.pt holds more than tensors"):
        load_clip(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "hacked").exists()


def test_pixels_are_normalised_alike_from_bytes_and_floats():
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(normalize(pixels), normalize(pixels / 255))


# Names of other layouts


def load_saved(folder, state, name="clip.pt"):
    torch.save(state, folder / name)
    return load_clip(str(folder / name))


@pytest.mark.parametrize(
    ("prefix", "holder"),
    [
        ("_orig_mod.", ""),
        ("model.", "state_dict"),
        ("module.", "model_state_dict"),
        ("_orig_mod.module.model.", "model"),
    ],
)
def test_names_lose_what_wrappers_put_before_them(tmp_path, prefix, holder):
    state = make_clip(TINY_VIT).state_dict()
    wrapped = {prefix + name: value for name, value in state.items()}
    loaded = load_saved(tmp_path, {holder: wrapped, "epoch": 3} if holder else wrapped).state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_learned_prompt_loses_them_too(tmp_path):
    ctx = torch.randn(4, 64)
    torch.save({"state_dict": {"module._orig_mod.ctx": ctx}, "epoch": 1}, tmp_path / "prompt")
    assert torch.equal(read_checkpoint(tmp_path / "prompt").state["ctx"], ctx)


def test_an_encoder_that_was_compiled_alone_is_read(tmp_path):
    state = make_clip(TINY_VIT).state_dict()
    load_saved(tmp_path, {k.replace("visual.", "visual._orig_mod."): v for k, v in state.items()})


@pytest.mark.parametrize("arch", (TINY_VIT, TINY_RESNET))
def test_missing_weights_are_named(tmp_path, arch):
    state = make_clip(arch).state_dict()
    for name in [name for name in state if not name.endswith("num_batches_tracked")][::9]:
        with pytest.raises(InputError, match=rf"these are not .* OpenAI's CLIP: .*missing \({name}[,)]"):
            check_names({k: v for k, v in state.items() if k != name}, "these")
    with pytest.raises(InputError, match=r"the weights of '.*clip.pt' are not .* 1 name is missing \(ln_final.bias\)$"):
        load_saved(tmp_path, {k: v for k, v in state.items() if k != "ln_final.bias"})


def test_unknown_weights_are_named_beside_missing_ones(tmp_path):
    state = make_clip(TINY_VIT).state_dict()
    state["ln_last.weight"] = state.pop("ln_final.weight")
    message = r"1 name is missing \(ln_final.weight\) and 1 name is unknown \(ln_last.weight\)$"
    with pytest.raises(InputError, match=message):
        load_saved(tmp_path, state)


def test_a_vocabulary_that_is_not_openais_is_refused(tmp_path):
    with pytest.raises(InputError, match="embed 1,000 tokens, but OpenAI's tokenizer has 49,408"):
        load_saved(tmp_path, make_clip((*TINY_VIT[:6], 1000, *TINY_VIT[7:])).state_dict())


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """A tiny CLIPModel of Hugging Face's, and the folder that it is saved in."""
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "projection_dim": 32}
    vision = {**size, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
    text = {**size, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(projection_dim=32, text_config=text, vision_config=vision)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # none is left at 0 or 1, where a mix-up would not be seen
            parameter += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("hugging_face")
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model, folder


@pytest.mark.parametrize("file", ("model.safetensors", "pytorch_model.bin"))
@torch.no_grad()
def test_weights_of_hugging_face_give_its_logits(hugging_face, file):
    theirs, folder = hugging_face
    images, tokens = torch.randn(3, 3, 32, 32), clip.tokenize(["a photo of a dog.", "a cat", "three words more"])
    expected = theirs(input_ids=tokens, pixel_values=images).logits_per_image
    found = load_clip(str(folder / file))
    assert expected.std() > 0.1
    torch.testing.assert_close(found(images, tokens)[0], expected, atol=1e-4, rtol=1e-4)
    learner = PromptLearner(found, ["dog", "three words more"], ctx_init="a photo of a")
    text = PromptedCLIP(found, learner).encode_text()
    own = theirs.get_text_features(input_ids=clip.tokenize(["a photo of a dog.", "a photo of a three words more."]))
    own = getattr(own, "pooler_output", own)
    torch.testing.assert_close(text, torch.nn.functional.normalize(own, dim=-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("part", "key", "value", "says"),
    [
        ("text", "hidden_act", "gelu", "hidden_act 'gelu' for the text encoder"),
        ("vision", "hidden_act", "gelu", "hidden_act 'gelu' for the vision encoder"),
        ("vision", "num_attention_heads", 4, "4 attention heads with a total width of 128 for the vision encoder"),
        ("text", "layer_norm_eps", 1e-6, "layer_norm_eps 1e-06 for the text encoder"),
    ],
)
def test_another_architecture_of_hugging_face_is_refused(hugging_face, tmp_path, part, key, value, says):
    theirs, folder = hugging_face
    config = json.loads((folder / "config.json").read_text())
    config[f"{part}_config"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=says):
        load_saved(tmp_path, theirs.state_dict())


def test_without_a_config_the_activation_is_said(hugging_face, tmp_path):
    state = hugging_face[0].state_dict()
    with pytest.warns(UserWarning, match="no config.json beside it"):
        load_saved(tmp_path, {f"module.{name}": value for name, value in state.items()})
    state.pop("text_model.encoder.layers.1.self_attn.k_proj.bias")
    with pytest.warns(UserWarning), pytest.raises(InputError, match="lacks .*layers.1.self_attn.k_proj.bias"):
        load_saved(tmp_path, state)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="config.json is not the config of a CLIPModel"):
        load_saved(tmp_path, state)
