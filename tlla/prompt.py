"""Learnable prompts for CLIP: context vectors in, normalised text features out.

One prompt model serves every method (zero-shot initialisation, CoOp, SAPT, STSS). The layout of a prompt is CoOp's
(Zhou et al., arXiv 2109.01134): ``[SOS, context, class name, ".", EOS]``
with the class name at the end, in the middle or at the front.

Three things differ from CoOp's code, none of which changes a logit: text sequences are cut at EOS (the text tower is
causal and is read at EOS, so what comes later is never seen); many prompts pass the text encoder in chunks of similar
length, whose activations are computed again in the backward pass if they would need too much memory; and the context
stays in fp32 whatever the precision of the backbone.

Letters in shapes: B images, K classes, L context tokens, T text tokens, D text width, E joint space, R perturbations.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from clip import clip
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .chunks import plan_chunks, token_limit
from .clip import encode_images, logit_scale
from .errors import InputError

CLASS_TOKEN_POSITIONS = ("end", "middle", "front")


def encode_embeddings(clip_model: nn.Module, x: Tensor, eos: Tensor) -> Tensor:
    """Text features of sequences that are given as token embeddings.

    Args:
        clip_model: OpenAI's CLIP.
        x: Embeddings without positions, (N, T, D), T <= context length.
        eos: Position of EOS in each sequence, (N,), int64.

    Returns:
        Normalised features, (N, E), float32.
    """
    length = x.shape[1]
    x = (x + clip_model.positional_embedding[:length]).type(clip_model.dtype)
    x = x.permute(1, 0, 2)  # (T, N, D)
    for block in clip_model.transformer.resblocks:
        # The mask is cut here: OpenAI's block applies it in full, and would refuse a shorter sequence.
        mask = block.attn_mask[:length, :length].to(dtype=x.dtype, device=x.device)
        y = block.ln_1(x)
        x = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        x = x + block.mlp(block.ln_2(x))
    x = x[eos, torch.arange(x.shape[1], device=x.device)]  # (N, D); ln_final is per token, so one row is enough
    x = clip_model.ln_final(x).type(clip_model.dtype) @ clip_model.text_projection
    return F.normalize(x.float(), dim=-1)


def check_position(position: str) -> None:
    """Raises InputError unless the class name can stand there."""
    if position not in CLASS_TOKEN_POSITIONS:
        raise InputError(f"CLASS_TOKEN_POSITION must be one of {CLASS_TOKEN_POSITIONS}, but got {position!r}")


def check_prompt(n_ctx: int, ctx_init: str, class_token_position: str) -> None:
    """Raises InputError unless a prompt can be built from these settings."""
    check_position(class_token_position)
    if not ctx_init.strip() and n_ctx < 1:
        raise InputError(f"N_CTX must be at least 1 when CTX_INIT is empty, but got {n_ctx}")


def tokenize_prompts(prompts: list[str], context_length: int) -> Tensor:
    """Tokens of full prompts, (K, context length), with an error that names the class that is too long."""
    tokenizer = clip._tokenizer
    for prompt in prompts:
        n_tokens = len(tokenizer.encode(prompt)) + 2
        if n_tokens > context_length:
            raise InputError(
                f"the prompt {prompt!r} has {n_tokens} tokens (SOS and EOS included), but the text encoder takes "
                f"{context_length}: shorten the class name or use fewer context tokens (N_CTX)"
            )
    return clip.tokenize(prompts, context_length=context_length)


def zeroshot_features(clip_model: nn.Module, classnames: list[str], templates: str | Sequence[str]) -> Tensor:
    """Text features of hand-written templates such as ``"a photo of a {}."``.

    Args:
        clip_model: OpenAI's CLIP.
        classnames: One name a class; underscores are read as spaces.
        templates: One template, or several: then a class's features are the normalised mean of its normalised ones.

    Returns:
        (K, E), normalised, float32.
    """
    templates = [templates] if isinstance(templates, str) else templates
    total = sum(_template_features(clip_model, classnames, template) for template in templates)
    return F.normalize(total, dim=-1)


def _template_features(clip_model: nn.Module, classnames: list[str], template: str) -> Tensor:
    check_template(template)
    device = clip_model.token_embedding.weight.device
    prompts = [template.format(name.replace("_", " ")) for name in classnames]
    tokens = tokenize_prompts(prompts, clip_model.context_length).to(device)
    eos = tokens.argmax(dim=-1)
    x = clip_model.token_embedding(tokens[:, : int(eos.max()) + 1])  # (K, T, D)
    return encode_embeddings(clip_model, x, eos)


def check_template(template: str) -> None:
    """Raises InputError unless the template has one place for the class name."""
    if template.count("{}") != 1:
        raise InputError(f"the prompt template {template!r} has no {{}} for the class name, or more than one")


class PromptLearner(nn.Module):
    """Context vectors and the class names around which they stand.

    Its state dict holds the context vectors alone (``ctx``), so that a prompt learned on one set of classes serves
    another; `set_classes` swaps the names.

    Args:
        clip_model: OpenAI's CLIP; its token embedding is read, never changed.
        classnames: One name a class; underscores are read as spaces.
        n_ctx: Number of context tokens L; with `ctx_init` the words decide and `n_ctx` is not used.
        ctx_init: Words whose embeddings the context starts from, e.g. ``"a photo of a"``; empty: normal, std 0.02.
        csc: Class-specific context: one set of L vectors for each class, (K, L, D), instead of a shared (L, D).
        class_token_position: "end", "middle" or "front".
        suffix: Fixed text after the class name.
    """

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
        self._clip = (clip_model,)
        self.csc = csc
        self.class_token_position = class_token_position
        self.suffix = suffix
        self.n_ctx = len(clip._tokenizer.encode(ctx_init)) if ctx_init else n_ctx
        self.set_classes(classnames)
        self.ctx = nn.Parameter(self._initial_context(ctx_init))

    def _initial_context(self, words: str) -> Tensor:
        weight = self._clip[0].token_embedding.weight
        sets = len(self.classnames) if self.csc else 1
        if words:
            tokens = clip.tokenize(words)[0, 1 : 1 + self.n_ctx].to(weight.device)
            ctx = weight[tokens].detach().float().expand(sets, -1, -1).clone()
        else:
            # Drawn on the CPU: the same seed gives the same prompt on every device.
            ctx = torch.empty(sets, self.n_ctx, weight.shape[1]).normal_(std=0.02).to(weight.device)
        return ctx if self.csc else ctx[0]

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
        device = clip_model.token_embedding.weight.device
        self.classnames = [name.replace("_", " ") for name in classnames]
        prompts = [" ".join(["X"] * self.n_ctx) + " " + name + self.suffix for name in self.classnames]
        tokens = tokenize_prompts(prompts, clip_model.context_length).to(device)
        eos = tokens.argmax(dim=-1)
        order = self._token_order(int(eos.max()) + 1).to(device)  # (K, T)
        embeddings = clip_model.token_embedding(tokens.gather(1, order)).float()  # (K, T, D)
        positions = ((order > 0) & (order <= self.n_ctx)).nonzero()[:, 1].view(-1, self.n_ctx)  # (K, L)
        self.lengths = (eos + 1).tolist()
        self.register_buffer("eos", eos, persistent=False)
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.register_buffer("ctx_positions", positions, persistent=False)

    def _token_order(self, length: int) -> Tensor:
        """For each place of the prompt, which token of ``[SOS, X × L, name, ".", EOS]`` stands there: (K, T)."""
        before = {"end": self.n_ctx, "middle": self.n_ctx // 2, "front": 0}[self.class_token_position]
        rows = []
        for name in self.classnames:
            n_name = len(clip._tokenizer.encode(name))
            order = list(range(length))
            name_tokens = order[1 + self.n_ctx : 1 + self.n_ctx + n_name]
            del order[1 + self.n_ctx : 1 + self.n_ctx + n_name]
            order[1 + before : 1 + before] = name_tokens
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
        clip_model: OpenAI's CLIP; it is frozen and put in evaluation mode.
        prompt_learner: The context vectors and class names.
        text_chunk: At most so many prompts pass the text encoder at once, and a graph keeps the activations of no more.
            0: as many as fit into a fixed budget of memory, see `chunks`.
    """

    def __init__(self, clip_model: nn.Module, prompt_learner: PromptLearner, text_chunk: int = 0):
        super().__init__()
        self.clip = clip_model.eval().requires_grad_(False)
        self.prompt_learner = prompt_learner
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
        features = torch.cat(features)[places.argsort()].view(len(contexts), len(classes), -1)  # (R, K, E)
        return features[0] if single else features

    def _encode_pairs(self, contexts: Tensor, prompts: Tensor, classes: Tensor, length: int) -> Tensor:
        """Features of N prompts of at most `length` tokens, by pairs of context and class: (N, E)."""
        x = self.prompt_learner(contexts, prompts, classes, length)  # (N, T, D)
        return encode_embeddings(self.clip, x, self.prompt_learner.eos[classes])

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarities: (..., E) and (K, E) -> (..., K), float32."""
        return self.logit_scale * image_features @ text_features.t()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images under the learner's own context: (B, 3, H, W) -> (B, K)."""
        return self.logits(self.encode_image(images), self.encode_text())
