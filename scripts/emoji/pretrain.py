"""Pre-train EmojiCLIP on the CPU: OpenAI's architecture, a contrastive loss, and a bank of category phrases.

Looks only at the pre-training images and at the source's val split. The learning rate follows the clock: a cosine
that ends with the time given, whatever the machine's speed. Workers are processes of one thread that train apart and
average their weights every few steps: on a shared machine they lose less time than threads, which wait for each
other in every operation.

    python -m scripts.emoji.pretrain --work DIR --minutes 80
"""

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path

import clip.model
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, multiprocessing, nn

from tlla.command_line import call
from tlla.errors import InputError
from tlla.fingerprint import differences

from . import corpus
from .assets import load_images, read_index, split_of
from .augment import normalize
from .captions import Vocabulary, bank_template, fill
from .sampler import Sampler

ARCHITECTURE = {
    "embed_dim": 128,
    "image_resolution": 64,
    "vision_layers": (1, 2, 2, 1),
    "vision_width": 32,
    "vision_patch_size": None,
    "context_length": 77,
    "transformer_width": 128,
    "transformer_heads": 2,
    "transformer_layers": 3,
}
EVAL_TEMPLATE = "an icon of a {}."
MAX_SCALE = math.log(100)


def contrastive_loss(logits: Tensor, own: Tensor, true_too: Tensor) -> Tensor:
    """CLIP's symmetric loss over (B, U) logits. A text can have several images; other true texts are left out."""
    logits = logits.masked_fill(true_too, -1e4)
    is_own = F.one_hot(own, logits.shape[1]).bool()
    share = is_own.float() / is_own.float().sum(0)
    text_loss = -(share * logits.log_softmax(0)).sum(0).mean()
    return (F.cross_entropy(logits, own) + text_loss) / 2


class Trainer:
    """Model, its running average, optimizer and clock."""

    def __init__(self, args: argparse.Namespace, sampler: Sampler, vocabulary: Vocabulary) -> None:
        self.args, self.sampler, self.vocabulary = args, sampler, vocabulary
        self.model = clip.model.CLIP(**ARCHITECTURE, vocab_size=len(vocabulary.tokens)).float().train()
        self.model.visual.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        flat = [p for p in self.model.parameters() if p.ndim < 2]
        deep = [p for p in self.model.parameters() if p.ndim >= 2]
        groups = [{"params": deep, "weight_decay": args.weight_decay}, {"params": flat, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-6)
        self.step, self.spent, self.loss = 0, 0.0, 0.0

    def encode(self, model: nn.Module, images: Tensor, *texts: list[str]) -> list[Tensor]:
        """Unit features of the images and of each list of texts. bfloat16: several times faster on a CPU with AMX."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            features = [model.encode_image(images), *(model.encode_text(self.vocabulary.batch(t)) for t in texts)]
        return [F.normalize(f.float(), dim=-1) for f in features]

    def losses(self) -> Tensor:
        """The contrastive loss of a new batch, plus the cross entropy over all categories' phrases."""
        images, texts, own, true_too, category = self.sampler.draw(self.args.batch)
        template = bank_template(self.sampler.rng)
        bank = [fill(template, c) for c in self.sampler.categories]
        # Apart, as texts are padded to the longest of their list and only the bank has fillers.
        image, text, bank = self.encode(self.model, images, texts, bank)
        image, known = self.model.logit_scale.exp() * image, category >= 0
        bank_loss = F.cross_entropy((image @ bank.t())[known], category[known])
        return contrastive_loss(image @ text.t(), own, true_too) + self.args.bank * bank_loss

    def set_rate(self) -> None:
        """Warm-up by steps, then a cosine by the clock."""
        done = min(1.0, self.spent / (60 * self.args.minutes))
        rate = self.args.lr * min(1.0, (self.step + 1) / 300) * (0.5 * (1 + math.cos(math.pi * done)) + 1e-3)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

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

    @torch.no_grad()
    def synchronize(self, spent: float) -> None:
        """Make the workers' weights and clocks equal, then update the running average."""
        values = [v for v in self.model.state_dict().values() if v.is_floating_point()]
        flat = torch.cat([v.reshape(-1) for v in values] + [torch.tensor([spent])])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = flat[:-1].split([v.numel() for v in values])
        for value, part in zip(values, parts, strict=True):
            value.copy_(part.view_as(value))
        self.spent = flat[-1].item()
        self._update_average()

    def _update_average(self) -> None:
        syncs = self.step / self.args.sync
        decay = min(self.args.average, (1 + syncs) / (10 + syncs))
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)  # batch norm's running statistics, too
            else:
                mean.copy_(value)

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor, classes: list[str]) -> float:
        """Zero-shot accuracy (%) of the averaged model."""
        image, text = self.encode(self.average, normalize(images), [fill(EVAL_TEMPLATE, c) for c in classes])
        return 100 * ((image @ text.t()).argmax(1) == labels).float().mean().item()

    def state(self) -> dict:
        """All that `resume` and the export need."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": (self.step, self.spent, self.loss),
            "tokens": self.vocabulary.tokens,
            "settings": settings(self.args),
        }

    def resume(self, state: dict) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: it is of other settings or of another vocabulary.
        """
        own = settings(self.args)
        if found := differences(state.get("settings", own), own):
            raise InputError(f"the checkpoint is of other settings: {'; '.join(found)}: choose another --name")
        if state["tokens"] != self.vocabulary.tokens:
            raise InputError("the checkpoint is of another vocabulary, hence of other images: choose another --name")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent, self.loss = state["progress"]


def settings(args: argparse.Namespace) -> dict:
    """What the weights depend on; not how long it takes, so that a run can be prolonged."""
    return {key: value for key, value in vars(args).items() if key not in ("work", "name", "minutes", "every")}


def save(state: dict, path: Path) -> None:
    """Whole or not at all: an interrupted write leaves the older checkpoint."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def note(trainer: Trainer, folder: Path, val: tuple[Tensor, Tensor, list[str]]) -> None:
    """A line of the curve, and a checkpoint."""
    samples = trainer.step * trainer.args.batch * dist.get_world_size()
    line = {"minutes": round(trainer.spent / 60, 2), "samples": samples}
    line |= {"loss": round(trainer.loss, 4), "scale": round(trainer.model.logit_scale.exp().item(), 2)}
    line |= {"val": round(trainer.accuracy(*val), 2)}
    with (folder / "curve.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)
    save(trainer.state(), folder / "checkpoint.pt")


def run(trainer: Trainer, folder: Path, val: tuple[Tensor, Tensor, list[str]]) -> None:
    """Train until the time is over; the first worker keeps the curve and the checkpoints."""
    args = trainer.args
    start, noted = time.monotonic() - trainer.spent, trainer.spent
    while trainer.spent < 60 * args.minutes:
        for _ in range(args.sync):
            trainer.update()
        trainer.synchronize(time.monotonic() - start)
        if trainer.spent - noted >= 60 * args.every or trainer.spent >= 60 * args.minutes:
            noted = trainer.spent
            if dist.get_rank() == 0:
                note(trainer, folder, val)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for packages, images and checkpoints")
    parser.add_argument("--name", default="run", help="sub-folder of --work for this run's curve and checkpoint")
    parser.add_argument("--minutes", type=float, default=64.0)
    parser.add_argument("--every", type=float, default=2.0, help="minutes between checkpoints")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--bank", type=float, default=1.0, help="weight of the loss over category phrases")
    parser.add_argument("--average", type=float, default=0.98, help="decay of the weights' running average, per sync")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sync", type=int, default=10, help="steps between two averagings of the workers' weights")
    parser.add_argument("--fp32", dest="bf16", action="store_false", help="no bfloat16")
    return parser.parse_args()


def work(rank: int, args: argparse.Namespace) -> None:
    """One worker: the same start, its own batches."""
    torch.set_num_threads(1)
    folder = args.work / args.name
    meeting = f"file://{(folder / 'meeting').resolve()}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.workers)
    torch.manual_seed(args.seed)  # equal first weights
    index = read_index()
    images, items = corpus.load(args.work, split_of(index))
    trainer = Trainer(args, Sampler(images, items, args.seed + 1000 * rank), Vocabulary(items))
    if (folder / "checkpoint.pt").exists():
        trainer.resume(torch.load(folder / "checkpoint.pt", weights_only=True))
    torch.manual_seed(args.seed + 1000 * rank + trainer.step)  # different batches
    classes = [c["name"] for c in index["classes"]]
    run(trainer, folder, (*load_images(index, "noto", "val"), classes))
    dist.destroy_process_group()


def main() -> None:
    args = parse_args()
    folder = args.work / args.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)  # left by an interrupted run, it would keep the workers apart
    multiprocessing.spawn(work, (args,), nprocs=args.workers)


if __name__ == "__main__":
    sys.exit(call(main))
