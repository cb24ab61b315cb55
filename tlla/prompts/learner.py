"""Learnable prompts for CLIP: context vectors in, normalised text features out.

One prompt model serves every method (zero-shot initialisation, CoOp, SAPT, STSS). The layout of a prompt is CoOp's
(Zhou et al., arXiv 2109.01134): ``[SOS, context, class name, ".", EOS]``
with the class name at the end, in the middle or at the front.

Three things differ from CoOp's code, none of which changes a logit: text sequences are cut at EOS (where the text tower
is causal and is read at EOS, so that what comes later is never seen); many prompts pass the text encoder in chunks of
similar length, whose activations are computed again in the backward pass if they would need too much memory; and the
context stays in fp32 whatever the precision of the backbone.

Letters in shapes: B images, K classes, L context tokens, T text tokens, D text width, E joint space, R perturbations.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import as_backbone
from ..errors import InputError
from ..fingerprint import class_order, weights_sha256
from .templates import template_context, template_tokens
from .tokens import OnShared, check_shared, find_placeholder, refuse_shared

CLASS_TOKEN_POSITIONS = ("end", "middle", "front")
FIXED_TOKENS = ("token_prefix", "token_suffix")  # CoOp saves the class tokens too; ours come from the class names


def check_position(position: str) -> None:
    """Raises InputError unless the class name can stand there."""
    if not isinstance(position, str) or position not in CLASS_TOKEN_POSITIONS:
        raise InputError(f"CLASS_TOKEN_POSITION must be one of {CLASS_TOKEN_POSITIONS}, but got {position!r}")


def check_prompt(n_ctx: int, ctx_init: str, class_token_position: str) -> None:
    """Raises InputError unless a prompt can be built from these settings."""
    check_position(class_token_position)
    if set("{}") & set(ctx_init):
        raise InputError(
            f"CTX_INIT takes words alone, such as 'a photo of a', but got {ctx_init!r}: leave out the place of the "
            "class name and what follows it"
        )
    if not ctx_init.strip() and n_ctx < 1:
        raise InputError(f"N_CTX must be at least 1 when CTX_INIT is empty, but got {n_ctx}")


def _n_before_name(position: str, n_ctx: int) -> int:
    """How many of the context tokens stand before the class name."""
    return {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]


class PromptLearner(nn.Module):
    """Context vectors and the class names around which they stand.

    Its state dict holds the context vectors alone (``ctx``), so that a prompt learned on one set of classes serves
    another; `set_classes` swaps the names.

    Args:
        clip_model: Any CLIP; its token embedding is read, never changed.
        classnames: One name a class; underscores are read as spaces.
        n_ctx: Number of context tokens L; with `ctx_init` the words decide and `n_ctx` is not used.
        ctx_init: Words whose embeddings the context starts from, e.g. ``"a photo of a"``; empty: normal, std 0.02.
        csc: Class-specific context: one set of L vectors for each class, (K, L, D), instead of a shared (L, D).
        class_token_position: "end", "middle" or "front".
        template: A hand-written prompt to start from, in place of the four settings above: its prompts are what
            `str.format` says, and the context is what `template_context` finds, at least one token.
        on_shared: See `check_shared`.
    """

    classnames: list[str]
    embeddings: Tensor
    tokens: Tensor
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
        # Held in a tuple so that the frozen CLIP is not a submodule: it must appear in no state dict of the prompt.
        self._clip = (as_backbone(clip_model),)
        self.csc = csc
        self.class_token_position = "end" if template else class_token_position
        self.on_shared = on_shared
        words = self._clip[0].tokenizer.encode(ctx_init)
        if template and not (words := template_context(self._clip[0], classnames, template)):
            raise InputError(f"the template {template!r} has no words apart from {{}}: there is no context to learn")
        self.n_ctx = len(words) or n_ctx
        if self.n_ctx > (most := self._clip[0].context_length - 2):  # before prompts of that length are made of text
            what = "CTX_INIT has" if words else "N_CTX is"
            raise InputError(f"{what} {self.n_ctx:,} tokens, but the text encoder takes {most} beside SOS and EOS")
        # CoOp's layout: after words that stand where the context will be the name and ".".
        self.template = template or find_placeholder(self._clip[0].tokenizer, self.n_ctx) + " {}."
        self.set_classes(classnames)
        self.ctx = nn.Parameter(self._initial_context(words))

    def _initial_context(self, words: list[int]) -> Tensor:
        weight = self._clip[0].token_weight
        sets = len(self.classnames) if self.csc else 1
        if words:
            ctx = weight[words].detach().float().expand(sets, -1, -1).clone()
        else:
            # Drawn on the CPU: the same seed gives the same prompt on every device.
            ctx = torch.empty(sets, self.n_ctx, weight.shape[1]).normal_(std=0.02).to(weight.device)
        return ctx if self.csc else ctx[0]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Leaves out the class tokens that CoOp saves beside the context: ours come from the class names."""
        for name in FIXED_TOKENS:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @cached_property
    def clip_sha256(self) -> str:
        """`weights_sha256` of the CLIP, which is frozen."""
        return weights_sha256(self._clip[0])

    @torch.no_grad()
    def set_classes(self, classnames: list[str]) -> None:
        """Puts other class names around the context; a class-specific one takes its own names in any order."""
        if not classnames:
            raise InputError("the list of class names is empty: give at least one class")
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
        self.register_buffer("embeddings", weight[tokens].float(), persistent=False)  # (K, T, D)
        self.register_buffer("ctx_positions", positions, persistent=False)

    def _token_order(self, length: int) -> Tensor:
        """For each place of the prompt, which token of ``[SOS, X × L, name, ".", EOS]`` stands there: (K, T)."""
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
        """Context tokens that all prompts begin with, after SOS."""
        if self.csc:
            return 0
        return _n_before_name(self.class_token_position, self.n_ctx)

    @property
    def n_shared(self) -> int:
        """Tokens that all prompts under one context begin with, P."""
        return self._clip[0].tokenizer.n_before + self.n_shared_ctx

    def prefix(self, ctx: Tensor) -> Tensor:
        """Embeddings of the tokens that all prompts under each of R contexts begin with, (R, ...) -> (R, P, D)."""
        start = self.embeddings[0, : self.n_shared - self.n_shared_ctx].expand(len(ctx), -1, -1)
        return torch.cat([start, ctx[:, : self.n_shared_ctx]], dim=1) if self.n_shared_ctx else start

    def forward(self, ctx: Tensor, classes: Tensor, start: int, end: int) -> Tensor:
        """Embeddings of the prompts of K classes under R contexts.

        Args:
            ctx: (R, L, D), or by class (R, all classes, L, D).
            classes: Which classes, (K,), int64.
            start: The first token that is wanted: 0 or `n_shared`.
            end: Where they are cut; no less than the longest of them needs.

        Returns:
            (R, K, end - start, D), float32, without positional embeddings.
        """
        x = self.embeddings[classes, start:end].expand(len(ctx), -1, -1, -1)
        first = self.n_shared_ctx if start else 0
        if first == self.n_ctx:
            return x
        # Expanded, not indexed: the backward pass of an expansion is a plain sum, in the same order on every run.
        wanted = ctx[:, classes] if self.csc else ctx[:, None].expand(-1, len(classes), -1, -1)  # (R, K, L, D)
        contexts, rows = (torch.arange(n, device=x.device) for n in x.shape[:2])
        places = self.ctx_positions[classes, first:] - start  # (K, L)
        return x.index_put((contexts[:, None, None], rows[:, None], places), wanted[:, :, first:])
