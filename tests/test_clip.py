"""Loading CLIP weights: every format that exists, and what is said of every file that is none."""

import gzip
import hashlib
import io
import os

import pytest
import torch
from clip import clip
from conftest import TINY_RESNET, TINY_VIT, make_clip

from tlla.clip import available_models, find_weights, image_size, load_clip, normalize
from tlla.errors import InputError


class RunsCode:
    """Would create a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("arch", (TINY_VIT, TINY_RESNET))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16))
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
    buffer = io.BytesIO()
    torch.save(make_clip(TINY_VIT).state_dict(), buffer)
    (tmp_path / "clip.pt.gz").write_bytes(gzip.compress(buffer.getvalue()))
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
