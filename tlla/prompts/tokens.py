"""Prompts as tokens: made of text, looked at for classes that share one, and words where the context will stand."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..backbones import Backbone, Tokenizer
from ..errors import InputError

OnShared = Callable[[str], None]  # takes a message on classes that share one prompt


PLACEHOLDERS = ("X", "x", "a", "the")  # words of one token, in most vocabularies


def tokenize_prompts(clip_model: Backbone, prompts: list[str]) -> Tensor:
    """Tokens of full prompts, (K, context length), with an error that names the class that is too long."""
    tokenizer = clip_model.tokenizer
    for prompt in prompts:
        n_tokens = len(tokenizer.encode(prompt)) + tokenizer.n_special
        if n_tokens > clip_model.context_length:
            raise InputError(
                f"the prompt {prompt!r} has {n_tokens} tokens (special ones included), but the text encoder takes "
                f"{clip_model.context_length}: shorten the class name or use fewer context tokens (N_CTX)"
            )
    return tokenizer(prompts)


def refuse_shared(message: str) -> None:
    """Raises InputError: what is done by default about classes that share one prompt."""
    raise InputError(f"{message}: give each class a name of other words")


def check_shared(tokens: Tensor, classnames: Sequence[str], on_shared: OnShared) -> None:
    """Calls `on_shared` if there are classes that no prompt tells apart, such as "Fruit" and "fruit".

    Args:
        tokens: What the text encoder sees of each class, (K, T); of an ensemble all prompts side by side.
        classnames: K names.
        on_shared: Gets a message that names the classes.
    """
    classes: dict[int, list[int]] = {}
    for k, row in enumerate(torch.unique(tokens, dim=0, return_inverse=True)[1].tolist()):
        classes.setdefault(row, []).append(k)
    if shared := [group for group in classes.values() if len(group) > 1]:
        texts = [" and ".join(f"{classnames[k]!r} (class {k})" for k in group[:3]) for group in shared[:3]]
        more = f"; {len(shared) - 3} more" if len(shared) > 3 else ""
        on_shared(
            f"classes share one prompt, as the text encoder sees the same tokens of them: {'; '.join(texts)}{more}"
        )


def find_placeholder(tokenizer: Tokenizer, n_ctx: int) -> str:
    """Words of `n_ctx` tokens, that stand where the context will be."""
    for word in PLACEHOLDERS:
        words = " ".join([word] * n_ctx)
        if len(tokenizer.encode(words)) == n_ctx:
            return words
    raise InputError(
        f"the tokenizer of this CLIP makes other than {n_ctx} tokens of {n_ctx} times any of {PLACEHOLDERS}, so that "
        "there is no place for the context: prompt learning needs another backbone"
    )
