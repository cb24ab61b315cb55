"""Tiny models of open_clip with random weights."""

import functools
import importlib.util

import pytest
import torch

from tlla.backbones import OpenClip


class Late:
    """open_clip, imported when it is used: only some of the processes that test need the seconds that it takes."""

    def __getattr__(self, name):
        if name.startswith("_"):  # as pytest asks for while it collects
            raise AttributeError(name)
        import open_clip

        if isinstance(open_clip.SimpleTokenizer, type):  # which reads its vocabulary each time
            open_clip.SimpleTokenizer = functools.cache(open_clip.SimpleTokenizer)
        return getattr(open_clip, name)


if not importlib.util.find_spec("open_clip"):
    pytest.skip("open_clip is not installed: pip install 'tlla[open_clip]'", allow_module_level=True)
open_clip = Late()

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
