"""Training of context vectors: CoOp's loop with a step that can be sharpness-aware (lambda = 0 is CoOp's own)."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from yacs.config import CfgNode

from tlla.errors import InputError, within
from tlla.prompts.checkpoint import epochs_in
from tlla.prompts.info import PromptInfo
from tlla.prompts.learner import PromptLearner, check_prompt
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.saved import Prompt
from tlla.sharpness import ascent, check_sharpness
from tlla.steps import State, Task, momentum_of
from tlla.variants import SAM, parse_variant

from .base import ClipTrainer
from .harness import distributed


def prompt_config(n_ctx: int) -> CfgNode:
    """The keys of a prompt learner, named as CoOp names them."""
    node = CfgNode()
    node.N_CTX = n_ctx  # number of context vectors; not used with CTX_INIT, whose tokens are counted instead
    node.CTX_INIT = ""  # initial words, e.g. "a photo of a"; "": random
    node.CSC = False  # class-specific context
    node.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    node.PREC = "auto"  # auto (amp on a GPU), fp32, fp16, bf16, amp; the context itself is always fp32
    add_training_keys(node)
    return node


def add_training_keys(node: CfgNode) -> None:
    """The keys of all trainers of prompts that CoOp does not have."""
    node.TEXT_CHUNK = 0  # prompts that pass the text encoder at once; 0: as many as a fixed budget of memory allows


class PromptTrainer(ClipTrainer):
    """Learns context vectors. A subclass names its node, and replaces what differs: `perturbation` or `take_step`.

    With the keys RHO and LAMBDA in the node the step is sharpness-aware, without them it is plain descent.

    Attributes:
        rho: Radius of the perturbation, RHO.
        lam: Weight of the sharpness, LAMBDA.
        variant: The sharpness-aware step, VARIANT.
        step_state: What the step keeps from one batch to the next.
        model_class: The prompted CLIP.
    """

    model_class = PromptedCLIP
    learned = "prompt_learner"
    free_keys = ("TEXT_CHUNK",)
    kind = "prompt"
    step_state: State = MappingProxyType({})

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses a prompt that cannot be built before anything is loaded."""
        super().check_cfg(cfg)
        node = cfg.TRAINER[self.config_node]
        with within(f"TRAINER.{self.config_node}"):
            check_prompt(node.N_CTX, node.CTX_INIT, node.get("CLASS_TOKEN_POSITION", "end"))
            if node.get("TEXT_CHUNK", 0) < 0:  # a CoOp fork's own nodes lack it
                raise InputError(f"TEXT_CHUNK must be at least 0, but got {node.TEXT_CHUNK}")
            self.rho, self.lam = node.get("RHO", 0.0), node.get("LAMBDA", 0.0)
            check_sharpness(self.rho, self.lam)
            self.variant = parse_variant(node.get("VARIANT", SAM.name))
            self.variant.check_lambda(self.lam)
            if self.variant.needs_momentum and cfg.OPTIM.NAME in ("sgd", "rmsprop") and not cfg.OPTIM.MOMENTUM:
                raise InputError(
                    f"VARIANT {self.variant} looks along the optimizer's momentum, but OPTIM.MOMENTUM is 0: set it to "
                    "0.9, or choose another VARIANT"
                )

    @property
    def training_name(self) -> str:
        """With the name of the step, if it is another one: then its runs are another method's."""
        return "-".join(filter(None, (super().training_name, self.step_name)))

    @property
    def step_name(self) -> str:
        """The sharpness-aware step, if it is not the usual one; "" if it is."""
        return str(self.variant) if self.variant != SAM else ""

    def build_model(self) -> None:
        """Builds the prompted CLIP; only the prompt learner's parameters go to the optimizer."""
        node = self.method_cfg
        learner = self.build_learner()
        print(f"Context: {node.CTX_INIT!r}" if node.CTX_INIT else "Context: random", f"({learner.n_ctx} tokens)")
        if self.cfg.MODEL.INIT_WEIGHTS:
            Prompt.load(self.cfg.MODEL.INIT_WEIGHTS).put_into(learner)
        self.model = self.model_class(self.clip_model, learner, node.get("TEXT_CHUNK", 0)).to(self.device)
        self.optim, self.sched = self.build_optim(learner)
        self.register_model(self.learned, learner, self.optim, self.sched)
        # fp16 gradients of a prompt underflow without a loss scale; bf16 has fp32's range and needs none.
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision in ("amp", "fp16") else None

    def build_learner(self) -> PromptLearner:
        """The context vectors."""
        node = self.method_cfg
        return PromptLearner(
            self.clip_model,
            self.dm.dataset.classnames,
            n_ctx=node.N_CTX,
            ctx_init=node.CTX_INIT,
            csc=node.CSC,
            class_token_position=node.CLASS_TOKEN_POSITION,
            on_shared=self.on_shared,
        )

    def build_optim(self, learner: PromptLearner) -> tuple:
        """Optimizer and schedule of the context vectors, as OPTIM says."""
        optim = build_optimizer(learner, self.cfg.OPTIM)
        return optim, build_lr_scheduler(optim, self.cfg.OPTIM)

    def before_train(self) -> None:
        """Refuses to resume from a prompt that is not finite."""
        super().before_train()
        if self.start_epoch and not all(p.isfinite().all() for p in self.model.prompt_learner.parameters()):
            folder = Path(self.cfg.RESUME or self.output_dir) / self.learned
            raise InputError(
                f"the context vectors in {epochs_in(folder)[self.start_epoch]} are not finite: remove it, or train anew"
            )

    def forward_backward(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One step on one batch. Image features are computed once: they do not depend on the prompt."""
        summary = self.take_step(*self.encode_batch(batch))
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def take_step(self, image_features: Tensor, labels: Tensor) -> dict[str, float]:
        """One step from the features (B, E) and labels (B,) of a batch; returns what to print."""
        return self.descend(lambda ctx: self.model.logits(image_features, self.class_features(ctx)), labels)

    def class_features(self, ctx: Tensor) -> Tensor:
        """Normalised features of all classes under a context, (K, E)."""
        return self.spread_classes(lambda own: self.model.encode_text(ctx, own))

    def spread_classes(self, encode: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """What `encode` returns of all classes, a row for each; each of several processes encodes its share of them."""
        with self.autocast():
            return distributed.spread(range(len(self.model.prompt_learner.classnames)), encode)

    def descend(self, logits: Callable[[Tensor], Tensor], labels: Tensor) -> dict[str, float]:
        """One step, sharpness-aware or plain; returns what to print, of the batch as the step first sees it.

        Args:
            logits: Maps the context vectors, or all that is learned in one vector if that is more, to (B, K).
            labels: Of the batch, (B,).
        """
        outputs = []

        def loss_fn(prompt: Tensor) -> Tensor:
            outputs.append(logits(prompt))
            return F.cross_entropy(outputs[-1], labels)

        prompt, parameters = self.learned_vector(), list(self.model.prompt_learner.parameters())
        scale, momentum = self.scaler.get_scale() if self.scaler else 1.0, momentum_of(self.optim, parameters)
        place = (prompt, self.rho, self.lam, scale, distributed.sum_gradient, self.perturbation, momentum)
        step, state = self.variant.step(Task(loss_fn, *place, self.cfg.SEED), self.step_state)
        accuracy = compute_accuracy(outputs[0], labels)[0][0]
        # A GPU is waited for once.
        finite, loss, acc, sharpness = torch.stack([step.finite, step.loss, accuracy, step.sharpness]).tolist()
        sizes = [parameter.numel() for parameter in parameters]
        parts = [g.view_as(p) for g, p in zip(step.gradient.flatten().split(sizes), parameters, strict=True)]
        self.apply_gradients(parts, step.loss, step.grad_norm, bool(finite), scale)
        if finite:
            self.step_state = state
        measured = self.rho > 0 and self.lam > 0 and not (finite and math.isnan(sharpness))
        return {"loss": loss, "acc": acc} | ({"sharpness": sharpness} if measured else {})

    def learned_vector(self) -> Tensor:
        """The context vectors, in their shape; with other parameters all of them in one vector."""
        parameters = list(self.model.prompt_learner.parameters())
        return parameters[0] if len(parameters) == 1 else parameters_to_vector(parameters)

    def perturbation(self, prompt: Tensor, gradient: Tensor) -> Tensor:
        """Hook: from the prompt to where the sharpness is looked for, of the prompt's shape; here steepest ascent.

        Args:
            prompt: The context vectors, detached, float32.
            gradient: Of the loss there, times an unknown loss scale: only its direction counts.
        """
        return ascent(prompt, gradient, self.rho)

    def apply_gradients(
        self, gradients: Iterable[Tensor], loss: Tensor, grad_norm: Tensor, finite: bool, scale: float
    ) -> None:
        """Steps the optimizer.

        Args:
            gradients: One for each parameter of the prompt learner, times `scale`.
            loss: A detached scalar, unscaled.
            grad_norm: Norm of the unscaled gradient.
            finite: Whether loss and gradients are finite.
            scale: The loss scale.

        Raises:
            FloatingPointError: They are not finite, and no lower loss scale could help.
        """
        # With a loss scale, an overflow is expected now and then: the scaler skips the step and lowers the scale.
        if not finite and scale <= 1:
            raise FloatingPointError(
                f"the loss or its gradient is not finite at epoch {self.epoch + 1}, batch {self.batch_idx + 1}: "
                f"loss {loss.item():.4g}, gradient norm {grad_norm.item():.4g}, "
                f"lr {self.get_current_lr():.2e}, rho {self.rho:g}, lambda {self.lam:g}; "
                "the prompt is unchanged since the step before: lower OPTIM.LR or RHO, or use PREC fp32"
            )
        self.optim.zero_grad()
        for parameter, gradient in zip(self.model.prompt_learner.parameters(), gradients, strict=True):
            parameter.grad = gradient
        if self.scaler is None:
            self.optim.step()
            return
        self.scaler.scale(loss)  # lets the scaler set up its state; the losses were scaled already
        if finite:
            self.scaler.step(self.optim)
            self.scaler.update()
        else:  # the scaler looks at gradients alone, which can be finite where the loss is not
            self.scaler.update(scale * self.scaler.get_backoff_factor())

    def trainer_state(self, epoch: int) -> dict[str, Any]:
        """Adds to a checkpoint which CLIP and which classes its prompt is for (our toolkit asks for it, not Dassl)."""
        entry = PromptInfo.of(self.model.prompt_learner, self.cfg.MODEL.BACKBONE.NAME).as_entry()
        own = {"step": {"variant": self.variant.name, "state": dict(self.step_state)}} if self.step_state else {}
        return {**super().trainer_state(epoch), "prompt": entry, **own}

    def load_trainer_state(self, state: dict[str, Any]) -> None:
        """Takes back what the step keeps, if it is the same step."""
        super().load_trainer_state(state)
        step = state.get("step")
        if isinstance(step, dict) and step.get("variant") == self.variant.name:
            self.step_state = self.variant.restored(step.get("state"), self.learned_vector().detach())

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads what a run has learned, exactly and strictly.

        Args:
            directory: The run's output folder.
            epoch: 1-based. Default: the newest, or the best on val if TEST.FINAL_MODEL is best_val.
        """
        if not directory:
            print("No --model-dir is given: testing the initial prompt")
            return
        prompt = Prompt.load(directory, epoch, self.cfg.TEST.FINAL_MODEL == "best_val")
        prompt.put_into(self.model.prompt_learner)
        self.note_loaded("prompt", prompt.path, prompt.epochs, prompt.trained_by)

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits, (B, 3, H, W) -> (B, K)."""
        return self.model.logits(self.encode_image(images), self.text_features)

    def before_test(self) -> None:
        """The class features are the same for all batches."""
        with self.autocast():
            self.text_features = self.model.encode_text()  # (K, E)

    def prompt(self) -> Tensor:
        """The context vectors."""
        return self.model.prompt_learner.ctx
