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

from collections.abc import Sequence
from functools import cached_property, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .backbones import Backbone, Tokenizer, as_backbone
from .chunks import plan_chunks, token_limit
from .clip import encode_images, logit_scale
from .errors import InputError
from .fingerprint import weights_sha256

CLASS_TOKEN_POSITIONS = ("end", "middle", "front")
PLACEHOLDERS = ("X", "x", "a", "the")  # words of one token, in most vocabularies


def encode_embeddings(clip_model: Backbone, x: Tensor, tokens: Tensor) -> Tensor:
    """Text features of sequences that are given as token embeddings.

    Args:
        clip_model: Any CLIP.
        x: Embeddings without positions, (N, T, D).
        tokens: The tokens for which they stand, (N, T), int64.

    Returns:
        Normalised features, (N, E), float32.
    """
    return F.normalize(clip_model.encode_embeddings(x, tokens).float(), dim=-1)


def check_position(position: str) -> None:
    """Raises InputError unless the class name can stand there."""
    if position not in CLASS_TOKEN_POSITIONS:
        raise InputError(f"CLASS_TOKEN_POSITION must be one of {CLASS_TOKEN_POSITIONS}, but got {position!r}")


def check_prompt(n_ctx: int, ctx_init: str, class_token_position: str) -> None:
    """Raises InputError unless a prompt can be built from these settings."""
    check_position(class_token_position)
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


def zeroshot_features(clip_model: nn.Module, classnames: list[str], templates: str | Sequence[str]) -> Tensor:
    """Text features of hand-written templates such as ``"a photo of a {}."``.

    Args:
        clip_model: Any CLIP.
        classnames: One name a class; underscores are read as spaces.
        templates: One template, or several: then a class's features are the normalised mean of its normalised ones.

    Returns:
        (K, E), normalised, float32.
    """
    backbone = as_backbone(clip_model)
    templates = [templates] if isinstance(templates, str) else templates
    total = reduce(torch.add, (_template_features(backbone, classnames, template) for template in templates))
    return F.normalize(total, dim=-1)


def _template_features(clip_model: Backbone, classnames: list[str], template: str) -> Tensor:
    check_template(template)
    prompts = [template.format(name.replace("_", " ")) for name in classnames]
    tokens = tokenize_prompts(clip_model, prompts).to(clip_model.logit_scale.device)
    return F.normalize(clip_model.encode_tokens(tokens).float(), dim=-1)


def is_template(text: str) -> bool:
    """Whether there is one {} for the class name, and no other brace, which would mean something to `str.format`."""
    return text.count("{}") == 1 and not set("{}") & set(text.replace("{}", ""))


def check_template(template: str) -> None:
    """Raises InputError unless the template has one place for the class name."""
    if not is_template(template):
        raise InputError(
            f"the prompt template {template!r} has no {{}} for the class name, or more than one, or other braces"
        )


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
        suffix: Fixed text after the class name.
    """

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
        suffix: str = ".",
    ):
        super().__init__()
        check_prompt(n_ctx, ctx_init, class_token_position)
        ctx_init = ctx_init.replace("_", " ").strip()
        # Held in a tuple so that the frozen CLIP is not a submodule: it must appear in no state dict of the prompt.
        self._clip = (as_backbone(clip_model),)
        self.csc = csc
        self.class_token_position = class_token_position
        self.suffix = suffix
        words = self._clip[0].tokenizer.encode(ctx_init)
        self.n_ctx = len(words) or n_ctx
        if self.n_ctx > (most := self._clip[0].context_length - 2):  # before prompts of that length are made of text
            what = "CTX_INIT has" if words else "N_CTX is"
            raise InputError(f"{what} {self.n_ctx:,} tokens, but the text encoder takes {most} beside SOS and EOS")
        self._placeholder = _find_placeholder(self._clip[0].tokenizer, self.n_ctx)
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

    @cached_property
    def clip_sha256(self) -> str:
        """`weights_sha256` of the CLIP, which is frozen."""
        return weights_sha256(self._clip[0])

    @torch.no_grad()
    def set_classes(self, classnames: list[str]) -> None:
        """Puts other class names around the context; a class-specific context fits only its own number of classes."""
        if not classnames:
            raise InputError("the list of class names is empty: give at least one class")
        if self.csc and hasattr(self, "ctx") and len(classnames) != len(self.ctx):
            raise InputError(
                f"the context is class-specific (CSC) for {len(self.ctx)} classes and cannot serve {len(classnames)}: "
                "train with CSC False to transfer a prompt"
            )
        clip_model = self._clip[0]
        weight = clip_model.token_weight
        self.classnames = [name.replace("_", " ") for name in classnames]
        prompts = [f"{self._placeholder} {name}{self.suffix}" for name in self.classnames]
        tokens = tokenize_prompts(clip_model, prompts).to(weight.device)
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
        before = {"end": self.n_ctx, "middle": self.n_ctx // 2, "front": 0}[self.class_token_position]
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

    def forward(self, ctx: Tensor, prompt: Tensor, classes: Tensor, length: int) -> Tensor:
        """Embeddings of N prompts, one for each pair of a context and a class.

        Args:
            ctx: R contexts, (R, L, D), or (R, K, L, D) when class-specific.
            prompt: Which of the R contexts, (N,), int64.
            classes: Which of the K classes, (N,), int64.
            length: Where they are cut, T; no less than the longest of them needs.

        Returns:
            (N, T, D), float32, without positional embeddings.
        """
        x = self.embeddings[classes, :length]  # (N, T, D)
        if self.csc:
            chosen = ctx[prompt, classes]  # (N, L, D)
        elif len(ctx) == 1:
            # Not ctx[prompt]: the backward pass of an expansion is a plain sum, in the same order on every run.
            chosen = ctx.expand(len(x), -1, -1)
        else:
            chosen = ctx[prompt]
        rows = torch.arange(len(x), device=x.device)[:, None]
        return x.index_put((rows, self.ctx_positions[classes]), chosen)


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
        return self.text_chunk or token_limit(self.clip) // max(self.prompt_learner.lengths)

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
        lengths = [learner.lengths[k] for k in classes] * len(contexts)
        chunks, many = plan_chunks(lengths, self.text_chunk, token_limit(self.clip))
        features = []
        for chunk in chunks:
            pairs = torch.tensor(chunk, device=ctx.device)
            which = torch.tensor([classes[i % len(classes)] for i in chunk], device=ctx.device)
            args = contexts, pairs // len(classes), which, max(lengths[i] for i in chunk)
            if many and torch.is_grad_enabled():
                # Nothing in CLIP's text encoder is random.
                features.append(checkpoint(self._encode_pairs, *args, use_reentrant=False, preserve_rng_state=False))
            else:
                features.append(self._encode_pairs(*args))
        places = torch.tensor([i for chunk in chunks for i in chunk], device=ctx.device)
        sorted_ = torch.cat(features)[places.argsort()].view(len(contexts), len(classes), -1)  # (R, K, E)
        return sorted_[0] if single else sorted_

    def _encode_pairs(self, contexts: Tensor, prompts: Tensor, classes: Tensor, length: int) -> Tensor:
        """Features of N prompts of at most `length` tokens, by pairs of context and class: (N, E)."""
        x = self.prompt_learner(contexts, prompts, classes, length)  # (N, T, D)
        return encode_embeddings(self.clip, x, self.prompt_learner.tokens[classes, :length])

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarities: (..., E) and (K, E) -> (..., K), float32."""
        return self.logit_scale * image_features @ text_features.t()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images under the learner's own context: (B, 3, H, W) -> (B, K)."""
        return self.logits(self.encode_image(images), self.encode_text())
