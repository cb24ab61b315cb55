"""Class descriptions: whole sentences on each class, such as a language model writes (CuPL, arXiv 2209.03320).

The file is a JSON object of class name to list of sentences, as those of sarahpratt/CuPL are. The features of a class
are the normalised mean of its sentences' normalised features, as those of an ensemble of templates.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..backbones import as_backbone
from ..errors import InputError
from .tokens import OnShared, check_shared, refuse_shared, tokenize_prompts

AT_ONCE = 256  # sentences that are encoded at once
FORM = 'a JSON object of class names and lists of sentences, {"cat": ["A cat has whiskers."]}'
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Descriptions:
    """Sentences by class name.

    Attributes:
        path: Of the file.
        sentences: By the names in the file, in which underscores have become spaces.
        sha256: Of the file.
    """

    path: str
    sentences: Mapping[str, tuple[str, ...]]
    sha256: str

    def of(self, classnames: Sequence[str]) -> list[tuple[str, ...]]:
        """The sentences on each class. Names must be equal, but for underscores, which are read as spaces.

        Raises:
            InputError: A class has none; names the classes, and names of the file that are of no class.
        """
        names = [name.replace("_", " ") for name in classnames]
        if missing := [name for name in names if name not in self.sentences]:
            others = [name for name in self.sentences if name not in set(names)]
            more = f", while {_some(others)} in it {'are' if len(others) > 1 else 'is'} of no class" if others else ""
            raise InputError(
                f"{self.path} has no sentences on {_some(missing)} of the {len(names)} classes{more}: names must be "
                "equal, upper and lower case included, but underscores are read as spaces"
            )
        return [self.sentences[name] for name in names]

    def __str__(self) -> str:
        """For records and tables: the path, and which file it was."""
        return f"{self.path} (sha256 {self.sha256[:12]})"


def is_descriptions(text: str | os.PathLike[str]) -> bool:
    """Whether a prompt is a file of class descriptions: a path that ends in .json.

    >>> is_descriptions("cupl.json"), is_descriptions("a photo of a {}.json")
    (True, False)
    """
    return os.fspath(text).lower().endswith(".json") and "{" not in os.fspath(text)


def read_class_descriptions(path: str | os.PathLike[str]) -> Descriptions:
    """Reads class descriptions.

    Raises:
        InputError: The file cannot be read, is of another form, or has a name twice.

    >>> _ = Path("few.json").write_text('{"sea_lion": ["A sea lion has flippers."]}')
    >>> read_class_descriptions("few.json").of(["sea lion"])
    [('A sea lion has flippers.',)]
    """
    if not Path(path).expanduser().is_file():
        raise InputError(f"there is no file {path}: a prompt whose name ends in .json is one of class descriptions")
    try:
        data = Path(path).expanduser().read_bytes()
        rows = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_Pairs)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the class descriptions {path} cannot be read ({error}): write {FORM}") from error
    if not isinstance(rows, _Pairs) or not rows:
        raise InputError(f"the class descriptions {path} hold no classes: write {FORM}")
    sentences: dict[str, tuple[str, ...]] = {}
    for name, texts in rows:
        key = name.replace("_", " ")
        if key in sentences:
            raise InputError(f"the class descriptions {path} have {name!r} twice (underscores are spaces): join both")
        if isinstance(texts, _Pairs) or not isinstance(texts, list) or not texts or not all(map(_is_sentence, texts)):
            raise InputError(f"the class descriptions {path} have no list of sentences on {name!r}: write {FORM}")
        if any("{}" in text for text in texts):
            raise InputError(
                f"the class descriptions {path} have a template with {{}} on {name!r}: write whole sentences"
            )
        sentences[key] = tuple(texts)
    return Descriptions(os.fspath(path), sentences, hashlib.sha256(data).hexdigest())


def description_features(
    clip_model: nn.Module, classnames: list[str], descriptions: Descriptions, on_shared: OnShared = refuse_shared
) -> Tensor:
    """Class features of class descriptions.

    Args:
        clip_model: Any CLIP.
        classnames: One name per class; underscores are read as spaces.
        descriptions: Sentences on each class, any number.
        on_shared: See `check_shared`.

    Returns:
        (K, E), normalised, float32.

    Raises:
        InputError: A class has no sentences, or a sentence is too long for the text encoder.

    >>> _ = Path("few.json").write_text('{"cat": ["A cat has whiskers.", "A cat purrs."], "dog": ["A dog barks."]}')
    >>> description_features(model, ["cat", "dog"], read_class_descriptions("few.json")).shape
    torch.Size([2, 128])
    """
    backbone = as_backbone(clip_model)
    hint = f"shorten that sentence in {descriptions.path}"
    tokens = [tokenize_prompts(backbone, list(texts), hint) for texts in descriptions.of(classnames)]
    check_shared(pad_sequence([own.flatten() for own in tokens], batch_first=True), classnames, on_shared)
    device = backbone.logit_scale.device
    means = []
    for own in tokens:
        features = torch.cat([backbone.encode_tokens(some.to(device)) for some in torch.split(own, AT_ONCE)])
        means.append(F.normalize(features.float(), dim=-1).sum(dim=0))  # of (S, E)
    return F.normalize(torch.stack(means), dim=-1)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its pairs: a dict would keep the last of equal names."""


def _is_sentence(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _some(names: Sequence[str]) -> str:
    """The number of names, and the first few."""
    shown = ", ".join(map(repr, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)
    return f"{len(names)} ({shown})"
