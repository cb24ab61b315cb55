"""Prompts as tokens: tokenization, detection of classes that share a prompt, and placeholders of the context."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..arguments import short
from ..backbones import Backbone, Tokenizer
from ..errors import InputError

OnShared = Callable[[str], None]  # called with a message about classes that share a prompt


SHORTER = "shorten the class name or use fewer context tokens (N_CTX)"
PLACEHOLDERS = ("X", "x", "a", "the")  # words of one token in most vocabularies


def tokenize_prompts(clip_model: Backbone, prompts: list[str], hint: str = SHORTER) -> Tensor:
    """Tokens of full prompts, (K, context length), int64; InputError with the prompt that is too long.

    >>> tokenize_prompts(model, ["a cat.", "a dog."])[:, :5]
    tensor([[49406,   320,  2368,   269, 49407],
            [49406,   320,  1929,   269, 49407]])
    """
    tokenizer = clip_model.tokenizer
    for prompt in prompts:
        n_tokens = len(tokenizer.encode(prompt)) + tokenizer.n_special
        if n_tokens > clip_model.context_length:
            raise InputError(
                f"the prompt {short(prompt)} has {n_tokens} tokens (special ones included), but the text encoder "
                f"accepts {clip_model.context_length}: {hint}"
            )
    return tokenizer(prompts)


def refuse_shared(message: str) -> None:
    """Raises InputError: the default for classes that share a prompt.

    >>> refuse_shared("classes share one prompt: 'Fruit' (class 0) and 'fruit' (class 1)")
    Traceback (most recent call last):
    tlla.errors.InputError: classes share one prompt: 'Fruit' (class 0) and 'fruit' (class 1): use a different name
    for each class
    """
    raise InputError(f"{message}: use a different name for each class")


def check_shared(tokens: Tensor, classnames: Sequence[str], on_shared: OnShared) -> None:
    """Calls `on_shared` if classes have the same tokens, such as "Fruit" and "fruit".

    Args:
        tokens: Tokens of each class, (K, T); of an ensemble those of all prompts side by side.
        classnames: K class names.
        on_shared: Called with a message that names the classes.

    >>> check_shared(torch.tensor([[7, 8], [7, 8]]), ["Fruit", "fruit"], on_shared=print)
    classes share one prompt, as they have the same tokens: 'Fruit' (class 0) and 'fruit' (class 1)
    """
    classes: dict[int, list[int]] = {}
    for k, row in enumerate(torch.unique(tokens, dim=0, return_inverse=True)[1].tolist()):
        classes.setdefault(row, []).append(k)
    if shared := [group for group in classes.values() if len(group) > 1]:
        texts = [" and ".join(f"{classnames[k]!r} (class {k})" for k in group[:3]) for group in shared[:3]]
        more = f"; {len(shared) - 3} more" if len(shared) > 3 else ""
        on_shared(f"classes share one prompt, as they have the same tokens: {'; '.join(texts)}{more}")


def find_placeholder(tokenizer: Tokenizer, n_ctx: int) -> str:
    """Words of `n_ctx` tokens, as placeholders of the context.

    >>> find_placeholder(model.tokenizer, 4)
    'X X X X'
    """
    for word in PLACEHOLDERS:
        words = " ".join([word] * n_ctx)
        if len(tokenizer.encode(words)) == n_ctx:
            return words
    raise InputError(
        f"the tokenizer of this CLIP has no word of one token among {PLACEHOLDERS} to repeat {n_ctx} times in place of "
        "the context: use another backbone for prompt learning"
    )
