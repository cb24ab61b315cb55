"""Pre-train EmojiCLIP on the CPU: OpenAI's architecture, a contrastive loss with false captions, banks of categories.

Three parts: with --start, a new text encoder learns names from the earlier one; pictures and captions; between words.
Looks only at the pre-training images and at the source's val split. The learning rate falls as a cosine over the
number of pictures asked for. The same command resumes an interrupted run.

    python -m scripts.emoji.pretrain --work DIR --samples 400000 --start first.pt.gz
"""

import argparse
import copy
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlla.backbones.openai_package import CLIP, clip
from tlla.command_line import call
from tlla.errors import InputError
from tlla.files import whole_file
from tlla.fingerprint import differences

from . import corpus
from .assets import benchmark_index, load_images, split_of
from .captions import TEMPLATES, Vocabulary, fill
from .export import exported_model, read_weights
from .mixing import Contexts, learn_between
from .pictures import normalize_pixels
from .sampler import Bank, Sampler

ARCHITECTURE = {
    "embed_dim": 128,
    "image_resolution": 64,
    "vision_layers": (1, 2, 2, 1),
    "vision_width": 32,
    "vision_patch_size": None,
    "context_length": 77,
    "transformer_width": 128,
    "transformer_heads": 2,
    "transformer_layers": 4,
}
EVAL_TEMPLATE = "an icon of a {}."
WARM_UP = 100  # steps
MAX_SCALE = math.log(100)
IGNORED = -1e4  # a logit that takes no part


def contrastive_loss(logits: Tensor, own: Tensor, ignored: Tensor) -> Tensor:
    """CLIP's symmetric loss over (B, U) logits. A text can have several images; one that has none is a negative."""
    logits = logits.masked_fill(ignored, IGNORED)
    is_own = F.one_hot(own, logits.shape[1]).bool()
    count = is_own.float().sum(0)
    text_loss = -(is_own / count.clamp(min=1) * logits.log_softmax(0)).sum(0)[count > 0].mean()
    return (F.cross_entropy(logits, own) + text_loss) / 2


class Trainer:
    """Model, its running average, optimizer and progress."""

    def __init__(self, args: argparse.Namespace, sampler: Sampler, vocabulary: Vocabulary) -> None:
        self.args, self.sampler, self.vocabulary = args, sampler, vocabulary
        self.model = CLIP(**ARCHITECTURE, vocab_size=len(vocabulary.tokens)).float().train()
        if args.start:
            self._start_from(args.start)
        self.model.visual.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=args.lr, betas=(0.9, 0.98), eps=1e-6)
        self.step, self.loss = 0, 0.0

    def _start_from(self, path: Path) -> None:
        """Take the image encoder, the scale and the token embeddings of earlier weights (zero: a token not read).

        Not the text transformer: one that has learned to ignore a context doesn't unlearn it. See `learn_names`.
        """
        weights = read_weights(path)
        self.model.visual.load_state_dict({k[7:]: v.float() for k, v in weights.items() if k.startswith("visual.")})
        self.model.logit_scale.data.copy_(weights["logit_scale"])
        rows = weights["token_embedding.weight"].float()[self.vocabulary.tokens]
        known = rows.norm(dim=1) > 0
        self.model.token_embedding.weight.data[known] = rows[known]

    def _groups(self) -> Iterator[dict]:
        """Weight decay on matrices only; a slower rate for an image encoder that starts from earlier weights."""
        slower = self.args.image_rate if self.args.start else 1.0
        for of_image in (True, False):
            own = [p for n, p in self.model.named_parameters() if n.startswith("visual.") == of_image]
            rate = {"factor": slower if of_image else 1.0}
            yield {"params": [p for p in own if p.ndim >= 2], "weight_decay": self.args.weight_decay, **rate}
            yield {"params": [p for p in own if p.ndim < 2], "weight_decay": 0.0, **rate}

    def encode_text(self, model: nn.Module, texts: list[str]) -> Tensor:
        """Unit features (N, E). The shorter half apart from the longer one, as texts are padded to the longest."""
        order = sorted(range(len(texts)), key=lambda k: len(self.vocabulary.ids(texts[k])))
        half = [order[: len(order) // 2], order[len(order) // 2 :]]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            parts = [model.encode_text(self.vocabulary.batch([texts[k] for k in own])) for own in half if own]
        return F.normalize(torch.cat(parts).float(), dim=-1)[torch.tensor(order).argsort()]

    def encode_image(self, model: nn.Module, images: Tensor) -> Tensor:
        """Unit features (N, E)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            return F.normalize(model.encode_image(images).float(), dim=-1)

    def learn_names(self, teacher: nn.Module, steps: int) -> None:
        """Text alone: a new text encoder learns all names from the earlier one, whose image encoder it works with."""
        names = [*self.sampler.labels, *self.sampler.categories * 20]
        for step in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.args.lr * min(1.0, (step + 1) / WARM_UP)
            texts = [fill(self.sampler.rng.choice(TEMPLATES), name) for name in self.sampler.rng.sample(names, 256)]
            tokens = clip.tokenize(texts)
            with torch.no_grad():
                target = F.normalize(teacher.encode_text(tokens[:, : (tokens > 0).sum(dim=1).max()]), dim=-1)
            loss = 1 - (self.encode_text(self.model, texts) * target).sum(dim=-1).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            if step % 100 == 99:
                print({"names": step + 1, "distance": round(loss.item(), 4)}, flush=True)
        self.average.load_state_dict(self.model.state_dict())

    def losses(self) -> Tensor:
        """The contrastive loss of a new batch, plus the cross entropies of its banks."""
        batch = self.sampler.draw(self.args.batch)
        image = self.model.logit_scale.exp() * self.encode_image(self.model, batch.images)
        loss = contrastive_loss(image @ self.encode_text(self.model, batch.texts).t(), batch.own, batch.ignored)
        return loss + self.args.bank * sum(self._bank_loss(image, bank) for bank in batch.banks)

    def _bank_loss(self, image: Tensor, bank: Bank) -> Tensor:
        logits = image[bank.images] @ self.encode_text(self.model, bank.texts).t()
        return F.cross_entropy(logits.masked_fill(bank.ignored, IGNORED), bank.target)

    @property
    def samples(self) -> int:
        """Pictures seen so far."""
        return self.step * self.args.batch

    def set_rate(self) -> None:
        """Warm-up by steps, then a cosine by samples."""
        done = min(1.0, self.samples / self.args.samples)
        rate = self.args.lr * min(1.0, (self.step + 1) / WARM_UP) * (0.5 * (1 + math.cos(math.pi * done)) + 1e-3)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]

    def update(self) -> None:
        """One step on a batch of its own."""
        self.set_rate()
        loss = self.losses()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        self.model.logit_scale.data.clamp_(0, MAX_SCALE)
        self.step += 1
        self.loss = loss.item() if self.step == 1 else 0.98 * self.loss + 0.02 * loss.item()
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.args.average, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)  # batch norm's running statistics, too
            else:
                mean.copy_(value)

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor, classes: list[str]) -> float:
        """Zero-shot accuracy (%) of the averaged model."""
        text = self.encode_text(self.average, [fill(EVAL_TEMPLATE, c) for c in classes])
        image = self.encode_image(self.average, normalize_pixels(images))
        return 100 * ((image @ text.t()).argmax(1) == labels).float().mean().item()

    def state(self) -> dict:
        """All that `resume` and the export need."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": (self.step, self.loss),
            "tokens": self.vocabulary.tokens,
            "settings": weight_settings(self.args),
        }

    def resume(self, state: dict) -> None:
        """Resume from a checkpoint. InputError if it is of other settings or of another vocabulary."""
        own = weight_settings(self.args)
        if found := differences(state.get("settings", own), own):
            raise InputError(f"the checkpoint is of other settings: {'; '.join(found)}: choose another --name")
        if state["tokens"] != self.vocabulary.tokens:
            raise InputError("the checkpoint is of another vocabulary, hence of other images: choose another --name")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.loss = state["progress"]


def weight_settings(args: argparse.Namespace) -> dict:
    """What the weights depend on; not how long it takes, so that a run can be prolonged."""
    found = {key: value for key, value in vars(args).items() if key not in ("work", "name", "samples", "every")}
    return found | {"start": str(args.start)}


def save_state(state: dict, path: Path) -> None:
    """Whole or not at all: an interrupted write leaves the older checkpoint."""
    with whole_file(path) as part:
        torch.save(state, part)


def note(trainer: Trainer, folder: Path, val: dict[str, tuple[Tensor, Tensor]], classes: list[str]) -> None:
    """A line of the curve, and a checkpoint."""
    line = {"samples": trainer.samples, "loss": round(trainer.loss, 4)}
    line |= {"scale": round(trainer.model.logit_scale.exp().item(), 2)}
    line |= {name: round(trainer.accuracy(*data, classes), 2) for name, data in val.items()}
    with (folder / "curve.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)
    save_state(trainer.state(), folder / "checkpoint.pt")


def run(trainer: Trainer, folder: Path, val: dict[str, tuple[Tensor, Tensor]], classes: list[str]) -> None:
    """Train until all samples are seen, with a curve and checkpoints."""
    while trainer.samples < trainer.args.samples:
        trainer.update()
        if trainer.step % trainer.args.every == 0 or trainer.samples >= trainer.args.samples:
            note(trainer, folder, val, classes)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for packages, images and checkpoints")
    parser.add_argument("--name", default="run", help="sub-folder of --work for this run's curve and checkpoint")
    parser.add_argument("--start", type=Path, help="earlier weights (.pt.gz) for the image encoder and the embeddings")
    parser.add_argument("--samples", type=int, default=400_000, help="pictures to see")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--image-rate", type=float, default=0.4, help="factor on --lr for an image encoder from --start"
    )
    parser.add_argument("--names", type=int, default=600, help="steps of learning names from --start, text alone")
    parser.add_argument("--between", type=int, default=400, help="steps of learning between words, at the end")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--bank", type=float, default=0.7, help="weight of the losses over category phrases")
    parser.add_argument("--average", type=float, default=0.995, help="decay of the weights' running average, per step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bfloat16: several times faster on a CPU with AMX")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    folder = args.work / args.name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    index = benchmark_index()
    images, items = corpus.load_corpus(args.work, split_of(index))
    trainer = Trainer(args, Sampler(images, items, args.seed), Vocabulary(items))
    if args.start and not (folder / "checkpoint.pt").exists():
        trainer.learn_names(exported_model(args.start), args.names)
        save_state(trainer.state(), folder / "checkpoint.pt")
    if (folder / "checkpoint.pt").exists():
        trainer.resume(torch.load(folder / "checkpoint.pt", weights_only=True))
        torch.manual_seed(args.seed + trainer.step)  # other batches than at the start
        trainer.sampler.rng.seed(args.seed + trainer.step)
    val = {"val": load_images(index, "noto", "val")}
    run(trainer, folder, val, [c["name"] for c in index["classes"]])
    contexts = Contexts(trainer.vocabulary, trainer.sampler.categories, trainer.sampler.labels, args.seed)
    for step, loss in enumerate(learn_between(trainer.average, contexts, args.between), start=1):
        if step % 50 == 0:
            print({"between": step, "distance": round(loss, 4)}, flush=True)
    save_state(
        {k: v for k, v in trainer.state().items() if k in ("average", "progress", "tokens")}, folder / "weights.pt"
    )


if __name__ == "__main__":
    sys.exit(call(main))
