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

from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .backbones import Backbone, Tokenizer, as_backbone
from .chunks import Chunks, plan_chunks, token_limit
from .clip import encode_images, logit_scale
from .errors import InputError
from .fingerprint import class_order, weights_sha256

OnShared = Callable[[str], None]  # takes a message on classes that share one prompt

CLASS_TOKEN_POSITIONS = ("end", "middle", "front")
FIXED_TOKENS = ("token_prefix", "token_suffix")  # CoOp saves the class tokens too; ours come from the class names
PLACEHOLDERS = ("X", "x", "a", "the")  # words of one token, in most vocabularies


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


def _find_placeholder(tokenizer: Tokenizer, n_ctx: int) -> str:
    """Words of `n_ctx` tokens, that stand where the context will be."""
    for word in PLACEHOLDERS:
        words = " ".join([word] * n_ctx)
        if len(tokenizer.encode(words)) == n_ctx:
            return words
    raise InputError(
        f"the tokenizer of this CLIP makes other than {n_ctx} tokens of {n_ctx} times any of {PLACEHOLDERS}, so that "
        "there is no place for the context: prompt learning needs another backbone"
    )


def zeroshot_features(
    clip_model: nn.Module,
    classnames: list[str],
    templates: str | Sequence[str],
    on_shared: OnShared = refuse_shared,
) -> Tensor:
    """Text features of hand-written templates such as ``"a photo of a {}."``.

    Args:
        clip_model: Any CLIP.
        classnames: One name a class; underscores are read as spaces.
        templates: One template, or several: then a class's features are the normalised mean of its normalised ones.
        on_shared: See `check_shared`.

    Returns:
        (K, E), normalised, float32.
    """
    backbone = as_backbone(clip_model)
    templates = [templates] if isinstance(templates, str) else templates
    tokens = [template_tokens(backbone, classnames, template) for template in templates]
    check_shared(torch.cat(tokens, dim=1), classnames, on_shared)
    device = backbone.logit_scale.device
    total = reduce(torch.add, (F.normalize(backbone.encode_tokens(t.to(device)).float(), dim=-1) for t in tokens))
    return F.normalize(total, dim=-1)


def fill_template(template: str, name: str) -> str:
    """The prompt of a class; underscores of its name, not of the template, are read as spaces."""
    return template.format(name.replace("_", " "))


def template_tokens(clip_model: Backbone, classnames: Sequence[str], template: str) -> Tensor:
    """Tokens of a template's prompts, (K, context length), int64, on the CPU."""
    check_template(template)
    return tokenize_prompts(clip_model, [fill_template(template, name) for name in classnames])


def template_context(clip_model: Backbone, classnames: Sequence[str], template: str) -> list[int]:
    """The tokens of the words before the class name that all of a template's prompts begin with.

    A word that is glued to the name ("un{}.") may be a part of other tokens there, and is no context then.
    """
    tokens, start = template_tokens(clip_model, classnames, template), clip_model.tokenizer.n_before
    context: list[int] = []
    for word, column in zip(clip_model.tokenizer.encode(template.partition("{}")[0]), tokens.T[start:], strict=False):
        if (column != word).any():
            break
        context.append(word)
    return context


def is_template(text: str) -> bool:
    """Whether there is one {} for the class name, and no other brace, which would mean something to `str.format`."""
    return text.count("{}") == 1 and not set("{}") & set(text.replace("{}", ""))


def check_template(template: str) -> None:
    """Raises InputError unless the template has one place for the class name."""
    if not is_template(template):
        raise InputError(
            f"the prompt template {template!r} has no {{}} for the class name, or more than one, or other braces"
        )


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
        self.template = template or _find_placeholder(self._clip[0].tokenizer, self.n_ctx) + " {}."
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


class PromptedCLIP(nn.Module):
    """A frozen CLIP whose text side is prompted by context vectors. Same logits as CoOp's CustomCLIP.

    Args:
        clip_model: Any CLIP; it is frozen and put in evaluation mode.
        prompt_learner: The context vectors and class names.
        text_chunk: At most so many prompts pass the text encoder at once, and a graph keeps the activations of no more.
            0: as many as fit into a fixed budget of memory, see `chunks`.
    """

    def __init__(self, clip_model: nn.Module, prompt_learner: PromptLearner, text_chunk: int = 0):
        super().__init__()
        self.clip = as_backbone(clip_model).eval().requires_grad_(False)
        self.prompt_learner: PromptLearner = prompt_learner
        self.text_chunk = text_chunk

    def train(self, mode: bool = True) -> "PromptedCLIP":
        """Only the prompt has a training mode: a frozen backbone must not update its batch-norm statistics."""
        super().train(mode)
        self.clip.eval()
        return self

    @property
    def logit_scale(self) -> Tensor:
        """CLIP's inverse temperature, a float32 scalar."""
        return logit_scale(self.clip)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised image features, (B, 3, H, W) -> (B, E), float32. Never needs a gradient: the trunk is frozen."""
        return encode_images(self.clip, images)

    @property
    def prompts_at_once(self) -> int:
        """How many prompts, be they as long as the longest, pass the text encoder at once."""
        return self.text_chunk or token_limit(self.clip) // (max(self.prompt_learner.lengths) - self._start)

    @property
    def _start(self) -> int:
        """The first token that passes the text encoder for each class, after those that are encoded once a context."""
        return 0 if self.clip.causal_tower is None else self.prompt_learner.n_shared

    def encode_text(self, ctx: Tensor | None = None, classes: Sequence[int] | None = None) -> Tensor:
        """Normalised text features under one context or under R of them.

        Args:
            ctx: (L, D) -> (K, E), or (R, L, D) -> (R, K, E); with a class-specific context (K, L, D) and
                (R, K, L, D). Default: the learner's own context.
            classes: Which classes' features are wanted. Default: all K.

        Returns:
            float32 features; gradients flow to `ctx`.
        """
        learner = self.prompt_learner
        ctx = learner.ctx if ctx is None else ctx
        single = ctx.dim() == learner.ctx.dim()
        contexts = ctx[None] if single else ctx
        classes = list(range(len(learner.lengths)) if classes is None else classes)
        own = [learner.lengths[k] - self._start for k in classes]
        plan = plan_chunks(own, len(contexts), self.text_chunk, token_limit(self.clip))
        features = torch.cat(
            [self._encode_group(group, classes, plan) for group in torch.split(contexts, plan.contexts)]
        )
        return features[0] if single else features

    def _encode_group(self, contexts: Tensor, classes: Sequence[int], plan: Chunks) -> Tensor:
        """Features of all classes under as many contexts as pass the encoder together: (R, K, E)."""
        learner, tower = self.prompt_learner, self.clip.causal_tower
        states = tower.prefix(learner.prefix(contexts)) if tower else None
        features = []
        for chunk in plan.classes:
            lengths = [learner.lengths[classes[i]] for i in chunk]
            which, ends = (torch.tensor(x, device=contexts.device) for x in ([classes[i] for i in chunk], lengths))
            args = contexts, states, which, ends, max(lengths)
            if plan.many and torch.is_grad_enabled():
                # Nothing in CLIP's text encoder is random.
                features.append(checkpoint(self._encode_chunk, *args, use_reentrant=False, preserve_rng_state=False))
            else:
                features.append(self._encode_chunk(*args))
        places = torch.tensor([i for chunk in plan.classes for i in chunk], device=contexts.device)
        return torch.cat(features, dim=1)[:, places.argsort()]

    def _encode_chunk(
        self, contexts: Tensor, states: Tensor | None, classes: Tensor, ends: Tensor, longest: int
    ) -> Tensor:
        """Features of K classes under R contexts, whose shared tokens' `states` are known: (R, K, E)."""
        learner, tower = self.prompt_learner, self.clip.causal_tower
        if tower is None or states is None:
            x = learner(contexts, classes, 0, longest)
            tokens = learner.tokens[classes, :longest].repeat(len(contexts), 1)
            features = self.clip.encode_embeddings(x.flatten(0, 1), tokens).view(*x.shape[:2], -1)
        else:
            x = learner(contexts, classes, learner.n_shared, longest)
            features = tower.suffix(x, states, ends - 1 - learner.n_shared)
        return F.normalize(features.float(), dim=-1)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarities: (..., E) and (K, E) -> (..., K), float32."""
        return self.logit_scale * image_features @ text_features.t()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images under the learner's own context: (B, 3, H, W) -> (B, K)."""
        return self.logits(self.encode_image(images), self.encode_text())
