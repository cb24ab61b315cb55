"""Hand-written templates: their class features, their words as a context, and the ensembles by CLIP's authors.

The 80 and the 7 templates were published for ImageNet (arXiv 2103.00020); CoOp's ZeroshotCLIP2 and Tip-Adapter use the
7. The features of a class are the normalised mean of its normalised features.
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone, as_backbone
from ..errors import InputError
from .descriptions import Descriptions, description_features
from .tokens import OnShared, check_shared, refuse_shared, tokenize_prompts

IMAGENET_80 = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

IMAGENET_7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

ENSEMBLES = {"imagenet80": IMAGENET_80, "imagenet7": IMAGENET_7}


def named_templates(name: str) -> str | tuple[str, ...] | None:
    """The template or ensemble of that name; None if it must be a path.

    >>> named_templates("a photo of a {}."), len(named_templates("imagenet7")), named_templates("runs/SAPT")
    ('a photo of a {}.', 7, None)
    """
    return ENSEMBLES.get(name) or (name if "{}" in name else None)


def zeroshot_features(
    clip_model: nn.Module,
    classnames: list[str],
    templates: str | Sequence[str] | Descriptions,
    on_shared: OnShared = refuse_shared,
) -> Tensor:
    """Class features of hand-written templates such as ``"a photo of a {}."``, or of class descriptions.

    Args:
        clip_model: Any CLIP.
        classnames: One name per class; underscores are read as spaces.
        templates: One template, or several to average, or what `read_class_descriptions` returned.
        on_shared: See `check_shared`.

    Returns:
        (K, E), normalised, float32.

    >>> zeroshot_features(model, ["cat", "dog"], "a photo of a {}.").shape
    torch.Size([2, 128])
    """
    if isinstance(templates, Descriptions):
        return description_features(clip_model, classnames, templates, on_shared)
    backbone = as_backbone(clip_model)
    templates = [templates] if isinstance(templates, str) else templates
    tokens = [template_tokens(backbone, classnames, template) for template in templates]
    check_shared(torch.cat(tokens, dim=1), classnames, on_shared)
    device = backbone.logit_scale.device
    total = reduce(torch.add, (F.normalize(backbone.encode_tokens(t.to(device)).float(), dim=-1) for t in tokens))
    return F.normalize(total, dim=-1)


def fill_template(template: str, name: str) -> str:
    """The prompt of a class; underscores in its name, but not in the template, become spaces.

    >>> fill_template("a photo of a {}.", "sea_lion")
    'a photo of a sea lion.'
    """
    return template.format(name.replace("_", " "))


def template_tokens(clip_model: Backbone, classnames: Sequence[str], template: str) -> Tensor:
    """Tokens of a template's prompts, (K, context length), int64, on the CPU.

    >>> template_tokens(model, ["cat", "dog"], "a {}.")[:, :5]
    tensor([[49406,   320,  2368,   269, 49407],
            [49406,   320,  1929,   269, 49407]])
    """
    check_template(template)
    return tokenize_prompts(clip_model, [fill_template(template, name) for name in classnames])


def template_context(clip_model: Backbone, classnames: Sequence[str], template: str) -> list[int]:
    """Tokens of the words before the class name with which all prompts of a template begin.

    A word that is joined to the name ("un{}.") may be part of other tokens, and then is not context.

    >>> template_context(model, ["cat", "dog"], "a photo of a {}.")
    [320, 1125, 539, 320]
    """
    tokens, start = template_tokens(clip_model, classnames, template), clip_model.tokenizer.n_before
    context: list[int] = []
    for word, column in zip(clip_model.tokenizer.encode(template.partition("{}")[0]), tokens.T[start:], strict=False):
        if (column != word).any():
            break
        context.append(word)
    return context


def is_template(text: str) -> bool:
    """Whether a text has exactly one {} for the class name and no other braces, which `str.format` would interpret.

    >>> is_template("a photo of a {}."), is_template("a photo of a {name}.")
    (True, False)
    """
    return text.count("{}") == 1 and not set("{}") & set(text.replace("{}", ""))


def check_template(template: str) -> None:
    """Raises InputError unless the template has one place for the class name.

    >>> check_template("a photo of a cat.")
    Traceback (most recent call last):
    tlla.errors.InputError: the prompt template 'a photo of a cat.' has no {} for the class name, or more than one, or
    other braces
    """
    if not is_template(template):
        raise InputError(
            f"the prompt template {template!r} has no {{}} for the class name, or more than one, or other braces"
        )
