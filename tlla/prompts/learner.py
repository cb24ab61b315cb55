"""Learnable prompts for CLIP: context vectors around class names.

All methods use this prompt (zero-shot initialisation, CoOp, SAPT, STSS). Its layout is CoOp's (Zhou et al., arXiv
2109.01134): ``[SOS, context, class name, ".", EOS]`` with the class name at the end, in the middle or at the front.

Three things differ from CoOp's code, without a change of the logits: texts are cut at EOS (if the text encoder is
causal and read at EOS, so that later tokens have no effect); prompts are encoded in chunks of similar length, whose
activations are recomputed in the backward pass if they need too much memory; and the context stays in fp32 whatever
the precision of the backbone.

Letters in shapes: B images, K classes, L context tokens, T text tokens, D text width, E joint space, R perturbations.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import one_of
from ..backbones import as_backbone
from ..errors import InputError
from ..fingerprint import class_order, weights_sha256
from .descriptions import is_descriptions
from .templates import template_context, template_tokens
from .tokens import OnShared, check_shared, find_placeholder, refuse_shared

CLASS_TOKEN_POSITIONS = ("end", "middle", "front")
FIXED_TOKENS = ("token_prefix", "token_suffix")  # CoOp saves the class tokens too; ours come from the class names


def check_position(position: str) -> None:
    """Raises InputError unless the position of the class name is known.

    >>> check_position("back")
    Traceback (most recent call last):
    tlla.errors.InputError: CLASS_TOKEN_POSITION must be one of ('end', 'middle', 'front'), but got 'back'
    """
    one_of("CLASS_TOKEN_POSITION", position, CLASS_TOKEN_POSITIONS)


def check_prompt(n_ctx: int, ctx_init: str, class_token_position: str) -> None:
    """Raises InputError unless a prompt can be built from these settings.

    >>> check_prompt(0, "", "end")
    Traceback (most recent call last):
    tlla.errors.InputError: N_CTX must be at least 1 when CTX_INIT is empty, but got 0
    """
    check_position(class_token_position)
    if set("{}") & set(ctx_init):
        raise InputError(
            f"CTX_INIT must consist of words, such as 'a photo of a', but got {ctx_init!r}: leave out the {{}} of the "
            "class name and what follows it"
        )
    if is_descriptions(ctx_init.strip()):
        raise InputError(
            f"CTX_INIT must consist of words, but {ctx_init!r} is a file of class descriptions: leave it out"
        )
    if not ctx_init.strip() and n_ctx < 1:
        raise InputError(f"N_CTX must be at least 1 when CTX_INIT is empty, but got {n_ctx}")


def _n_before_name(position: str, n_ctx: int) -> int:
    """Number of context tokens before the class name."""
    return {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]


class PromptLearner(nn.Module):
    """Context vectors and the class names that they surround.

    The state dict holds only the context vectors (``ctx``), so that a prompt learned on some classes can be used with
    others; `set_classes` replaces the names.

    Args:
        clip_model: Any CLIP; its token embedding is read, not modified.
        classnames: One name per class; underscores are read as spaces.
        n_ctx: Number of context tokens L; ignored if `ctx_init` has words.
        ctx_init: Words whose embeddings initialise the context, such as ``"a photo of a"``; empty: normal, std 0.02.
        csc: Class-specific context: L vectors for each class, (K, L, D), instead of shared ones, (L, D).
        class_token_position: "end", "middle" or "front".
        template: A hand-written prompt to start from, in place of the four settings above. Its context is what
            `template_context` returns, at least one token.
        on_shared: See `check_shared`.
    """

    classnames: list[str]
    embeddings: Tensor
    tokens: Tensor
    eos: Tensor
    ctx_positions: Tensor

    def __init__(
        self,
        clip_model: nn.Module,
        classnames: list[str],
        n_ctx: int = 4,
        ctx_init: str = "",
        csc: bool = False,
        class_token_position: str = "end",
        template: str = "",
        on_shared: OnShared = refuse_shared,
    ):
        super().__init__()
        check_prompt(n_ctx, ctx_init, class_token_position)
        ctx_init = ctx_init.replace("_", " ").strip()
        # In a tuple, so that the frozen CLIP is not a submodule: no state dict of the prompt may hold it.
        self._clip = (as_backbone(clip_model),)
        self.csc = csc
        self.class_token_position = "end" if template else class_token_position
        self.on_shared = on_shared
        words = self._clip[0].tokenizer.encode(ctx_init)
        if template and not (words := template_context(self._clip[0], classnames, template)):
            raise InputError(f"the template {template!r} has no words apart from {{}}, so there is no context to learn")
        self.n_ctx = len(words) or n_ctx
        if self.n_ctx > (most := self._clip[0].context_length - 2):  # before prompts of that length are made
            what = "CTX_INIT has" if words else "N_CTX is"
            raise InputError(f"{what} {self.n_ctx:,} tokens, but the text encoder accepts {most} beside SOS and EOS")
        # CoOp's layout: placeholders of the context, then the name and ".".
        self.template = template or find_placeholder(self._clip[0].tokenizer, self.n_ctx) + " {}."
        self.set_classes(classnames)
        self.ctx = nn.Parameter(self._initial_context(words))

    def _initial_context(self, words: list[int]) -> Tensor:
        weight = self._clip[0].token_weight
        sets = len(self.classnames) if self.csc else 1
        if words:
            ctx = weight[words].detach().float().expand(sets, -1, -1).clone()
        else:
            # Drawn on the CPU, so that a seed yields the same prompt on every device.
            ctx = torch.empty(sets, self.n_ctx, weight.shape[1]).normal_(std=0.02).to(weight.device)
        return ctx if self.csc else ctx[0]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Ignores the class tokens that CoOp saves beside the context: ours come from the class names."""
        for name in FIXED_TOKENS:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @cached_property
    def clip_sha256(self) -> str:
        """`weights_sha256` of the frozen CLIP."""
        return weights_sha256(self._clip[0])

    @torch.no_grad()
    def set_classes(self, classnames: list[str]) -> None:
        """Replaces the class names; a class-specific context accepts its own names in any order."""
        if not classnames:
            raise InputError("the list of class names is empty: name at least one class")
        if self.csc and hasattr(self, "ctx"):
            self.ctx.copy_(self.ctx[class_order("the class-specific context (CSC)", self.classnames, classnames)])
        clip_model = self._clip[0]
        weight = clip_model.token_weight
        self.classnames = [name.replace("_", " ") for name in classnames]
        tokens = template_tokens(clip_model, classnames, self.template)
        check_shared(tokens, classnames, self.on_shared)
        tokens = tokens.to(weight.device)
        self.lengths = clip_model.lengths(tokens)
        order = self._token_order(max(self.lengths)).to(weight.device)  # (K, T)
        start = clip_model.tokenizer.n_before
        positions = ((order >= start) & (order < start + self.n_ctx)).nonzero()[:, 1].view(-1, self.n_ctx)  # (K, L)
        tokens = tokens.gather(1, order)
        self.register_buffer("tokens", tokens, persistent=False)
        self.register_buffer("eos", torch.tensor(self.lengths, device=weight.device) - 1, persistent=False)  # (K,)
        self.register_buffer("embeddings", weight[tokens].float(), persistent=False)  # (K, T, D)
        self.register_buffer("ctx_positions", positions, persistent=False)

    def _token_order(self, length: int) -> Tensor:
        """Index in ``[SOS, X × L, name, ".", EOS]`` of the token at each position of the prompt: (K, T)."""
        before = _n_before_name(self.class_token_position, self.n_ctx)
        tokenizer = self._clip[0].tokenizer
        start = tokenizer.n_before
        rows = []
        for name in self.classnames:
            n_name = len(tokenizer.encode(name))
            order = list(range(length))
            name_tokens = order[start + self.n_ctx : start + self.n_ctx + n_name]
            del order[start + self.n_ctx : start + self.n_ctx + n_name]
            order[start + before : start + before] = name_tokens
            rows.append(order)
        return torch.tensor(rows)

    @property
    def n_shared_ctx(self) -> int:
        """Number of context tokens with which all prompts begin, after SOS."""
        if self.csc:
            return 0
        return _n_before_name(self.class_token_position, self.n_ctx)

    @property
    def n_shared(self) -> int:
        """Number of tokens with which all prompts under one context begin, P."""
        return self._clip[0].tokenizer.n_before + self.n_shared_ctx

    def prefix(self, ctx: Tensor) -> Tensor:
        """Embeddings of the tokens with which all prompts under each of R contexts begin: (R, ...) -> (R, P, D)."""
        start = self.embeddings[0, : self.n_shared - self.n_shared_ctx].expand(len(ctx), -1, -1)
        return torch.cat([start, ctx[:, : self.n_shared_ctx]], dim=1) if self.n_shared_ctx else start

    def forward(self, ctx: Tensor, classes: Tensor, start: int, end: int) -> Tensor:
        """Embeddings of the prompts of K classes under R contexts.

        Args:
            ctx: Contexts, (R, L, D), or (R, all classes, L, D) if class-specific.
            classes: Indices of the K classes, (K,), int64.
            start: First token to return: 0 or `n_shared`.
            end: End of the prompts, at least the length of the longest.

        Returns:
            (R, K, end - start, D), float32, without positional embeddings.
        """
        x = self.embeddings[classes, start:end].expand(len(ctx), -1, -1, -1)
        first = self.n_shared_ctx if start else 0
        if first == self.n_ctx:
            return x
        # Expanded, not indexed: the backward pass of an expansion sums in the same order on every run.
        wanted = ctx[:, classes] if self.csc else ctx[:, None].expand(-1, len(classes), -1, -1)  # (R, K, L, D)
        contexts, rows = (torch.arange(n, device=x.device) for n in x.shape[:2])
        places = self.ctx_positions[classes, first:] - start  # (K, L)
        return x.index_put((contexts[:, None, None], rows[:, None], places), wanted[:, :, first:])
