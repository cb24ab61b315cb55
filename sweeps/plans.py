"""The protocols of the paper as lists of jobs. Folders and the order of arguments are CoOp's."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import train
from tlla.errors import InputError, nearest

from .job import Job

SHIFTED = ("imagenet_a", "imagenetv2", "imagenet_r", "imagenet_sketch")
TEN = (
    *("caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "food101", "ucf101"),
)
NODES = {"SAPT": "SAPT", "TLLA": "SAPT", "CoOp": "COOP"}  # where a trainer's prompt is configured
LONG, SHORT = "vit_b16_c4_ep50", "vit_b16_c4_ep5"  # of SAPT: domain generalization, cross-dataset transfer
TABLE1 = {  # methods at test time in the paper's tables, by the prompt that they run on
    "template": ("TPT", "CTPT", "ZERO", "MTA", "TDA", "DPE"),
    "CoOp": ("TPT", "CTPT", "ZERO", "MTA", "SAR"),
}
TABLE2 = {"template": ("TPT", "ZERO"), "CoOp": ("TPT",)}
YAML = (".yaml", ".yml")
VIEW_NODES = {"TLLA": "TLLA", "Compare": "VIEWS"}


@dataclass(frozen=True)
class Settings:
    """What all plans share.

    Attributes:
        out: Folder of all runs.
        data: Folder of the datasets; "" leaves it to the config.
        seeds: One run each.
        shots: Training images a class.
        source: Dataset that prompts are trained on.
        targets: Datasets to test on; (): the protocol's own.
        rho: SAPT's radius; None: the config's.
        opts: Further keys and values, for every run.
    """

    out: Path = Path("output")
    data: str = ""
    seeds: tuple[int, ...] = (1, 2, 3)
    shots: int = 16
    source: str = "imagenet"
    targets: tuple[str, ...] = ()
    rho: float | None = None
    opts: tuple[str, ...] = ()

    def job(self, trainer: str, cfg: str, dataset: str, seed: int, folder: str, *opts: str, **more) -> Job:
        """A job; the name of a config may be a file, too."""
        rho = () if self.rho is None or NODES.get(trainer) != "SAPT" else ("TRAINER.SAPT.RHO", repr(float(self.rho)))
        return Job(
            trainer,
            find(f"configs/trainers/{trainer}", cfg),
            find("configs/datasets", dataset),
            seed,
            self.out / folder / f"seed{seed}",
            self.data,
            (*opts, *rho, *self.opts),
            **more,
        )


def find(folder: str, name: str) -> str:
    """A config by its name in a folder, or by its path; InputError names the nearest."""
    if name.endswith(YAML):
        return str(Path(name).resolve()) if Path(name).is_file() else name
    known = sorted(path.stem for path in (train.HERE / folder).glob("*.yaml"))
    if name not in known:
        raise InputError(f"there is no config {folder}/{name}.yaml: {nearest(name, known)}")
    return f"{folder}/{name}.yaml"


@dataclass(frozen=True)
class Prompt:
    """A prompt that is trained, as CoOp's main.sh describes it.

    Attributes:
        trainer: SAPT, CoOp or TLLA.
        cfg: Config of the trainer.
        position: Where the class name stands.
        n_ctx: Context vectors; None: as the config has it.
        csc: Whether each class has its own.
    """

    trainer: str
    cfg: str
    position: str = "end"
    n_ctx: int | None = None
    csc: bool = False

    def tag(self, s: Settings) -> str:
        """CoOp's name of the settings in a folder."""
        n_ctx = self.n_ctx if self.n_ctx is not None else _context(self.trainer, self.cfg)[1]
        return f"{Path(self.cfg).stem}_{s.shots}shots/nctx{n_ctx}_csc{self.csc}_ctp{self.position}"

    def opts(self) -> tuple[str, ...]:
        """Only what differs from the config: initial words would count more than N_CTX."""
        node = f"TRAINER.{NODES[self.trainer]}"
        words, n_ctx = _context(self.trainer, self.cfg)
        found: list[str] = []
        if self.n_ctx not in (None, n_ctx):
            found += [f"{node}.N_CTX", str(self.n_ctx)] + ([f"{node}.CTX_INIT", ""] if words else [])
        if self.csc:
            found += [f"{node}.CSC", "True"]
        if self.position != "end":
            found += [f"{node}.CLASS_TOKEN_POSITION", self.position]
        return tuple(found)

    def train(self, s: Settings, dataset: str, seed: int) -> Job:
        """Its training."""
        folder = f"{Path(dataset).stem}/{self.trainer}/{self.tag(s)}"
        return s.job(self.trainer, self.cfg, dataset, seed, folder, *shots(s), *self.opts())


@functools.cache
def _context(trainer: str, cfg: str) -> tuple[str, int]:
    """A config's initial words and number of context vectors."""
    argv = ["--trainer", trainer, "--config-file", find(f"configs/trainers/{trainer}", cfg)]
    built = train.build_cfg(train.parse_args([*argv, "--dataset-config-file", "configs/datasets/imagenet.yaml"]))
    node = built.TRAINER[NODES[trainer]]
    return node.CTX_INIT, len(node.CTX_INIT.split()) or node.N_CTX


def shots(s: Settings) -> tuple[str, str]:
    """The key of the number of shots."""
    return "DATASET.NUM_SHOTS", str(s.shots)


def trainings(s: Settings, prompt: Prompt, dataset: str) -> list[Job]:
    """CoOp's main.sh: one training a seed."""
    return [prompt.train(s, dataset, seed) for seed in s.seeds]


def evaluations(s: Settings, prompt: Prompt, trainer: str, cfg: str, targets: Sequence[str], *opts: str) -> list[Job]:
    """CoOp's eval.sh: a trainer tests, on each target, the prompt that was learned on the source."""
    usual = trainer == prompt.trainer or (trainer, prompt.trainer) == ("TLLA", "SAPT")
    label = trainer if usual else f"{trainer}+{prompt.trainer}"
    jobs = []
    for target in targets:
        for seed in s.seeds:
            source = prompt.train(s, s.source, seed)
            if trainer == prompt.trainer and target == s.source:
                jobs.append(source)  # has tested it already
                continue
            folder = f"evaluation/{label}/{prompt.tag(s)}/{Path(target).stem}"
            more = (*prompt.opts(), *augmix(trainer, target), *opts)
            jobs.append(s.job(trainer, cfg, target, seed, folder, *more, source=source))
    return jobs


def augmix(trainer: str, target: str) -> tuple[str, ...]:
    """AugMix on the fine-grained sets, as TPT and the paper have it."""
    wanted = trainer in VIEW_NODES and Path(target).stem in TEN
    return (f"TRAINER.{VIEW_NODES[trainer]}.AUGMIX", "True") if wanted else ()


def domain_generalization(s: Settings, cfg: str = LONG) -> list[Job]:
    """TLLA on the source and its shifted variants."""
    return evaluations(s, Prompt("SAPT", cfg), "TLLA", cfg, (s.source, *(s.targets or SHIFTED)))


def cross_dataset(s: Settings, cfg: str = SHORT) -> list[Job]:
    """TLLA on ten other datasets."""
    return evaluations(s, Prompt("SAPT", cfg), "TLLA", cfg, s.targets or TEN)


def coop_prompt(cfg: str) -> Prompt:
    """CoOp with SAPT's 4 tokens and 50 epochs; CoOp's name of that config is ep50_ctxv1."""
    return Prompt("CoOp", cfg if cfg.endswith(YAML) else cfg.replace("_c4_ep50", "_ep50_ctxv1"))


def ablation(s: Settings, cfg: str = LONG) -> list[Job]:
    """CoOp, SAPT, STSS on CoOp's prompt, and TLLA, on the source and its shifted variants."""
    targets = (s.source, *(s.targets or SHIFTED))
    coop, sapt = coop_prompt(cfg), Prompt("SAPT", cfg)
    cells = ((coop, "CoOp", coop.cfg), (sapt, "SAPT", cfg), (coop, "TLLA", cfg), (sapt, "TLLA", cfg))
    return [job for prompt, trainer, config in cells for job in evaluations(s, prompt, trainer, config, targets)]


def base2new_train(s: Settings, dataset: str, cfg: str, trainer: str = "SAPT") -> list[Job]:
    """CoCoOp's base2new_train.sh: training on the first half of the classes."""
    common = f"{Path(dataset).stem}/shots_{s.shots}/{trainer}/{Path(cfg).stem}"
    opts = (*shots(s), "DATASET.SUBSAMPLE_CLASSES", "base")
    return [s.job(trainer, cfg, dataset, seed, f"base2new/train_base/{common}", *opts) for seed in s.seeds]


def base2new_test(s: Settings, dataset: str, cfg: str, trainer: str = "SAPT") -> list[Job]:
    """CoCoOp's base2new_test.sh: the prompt of the base classes on the new ones."""
    common = f"{Path(dataset).stem}/shots_{s.shots}/{trainer}/{Path(cfg).stem}"
    opts = (*shots(s), "DATASET.SUBSAMPLE_CLASSES", "new")
    return [
        s.job(trainer, cfg, dataset, source.seed, f"base2new/test_new/{common}", *opts, source=source)
        for source in base2new_train(s, dataset, cfg, trainer)
    ]


def zeroshot(s: Settings, targets: Sequence[str], cfg: str = "vit_b16") -> list[Job]:
    """CoOp's zeroshot.sh. Nothing is random: one seed."""
    return [
        s.job("ZeroshotCLIP", cfg, target, s.seeds[0], f"ZeroshotCLIP/{cfg}/{Path(target).stem}") for target in targets
    ]


def compared(
    s: Settings, targets: Sequence[str], methods: Mapping[str, Sequence[str]], cfg: str = "vit_b16"
) -> list[Job]:
    """Methods at test time on the hand-written prompt and on CoOp's, all in one pass over a dataset, for each seed."""
    chosen = {prompt: json.dumps(names, separators=(",", ":")) for prompt, names in methods.items()}
    key = "TRAINER.COMPARE.METHODS"
    jobs = []
    for target in targets:
        folder, opts = f"evaluation/Compare/{cfg}/{Path(target).stem}", augmix("Compare", target)
        jobs += [s.job("Compare", cfg, target, seed, folder, *opts, key, chosen["template"]) for seed in s.seeds]
    return jobs + evaluations(s, coop_prompt(LONG), "Compare", cfg, targets, key, chosen["CoOp"])


def trained(s: Settings, trainer: str, cfg: str, targets: Sequence[str]) -> list[Job]:
    """CoCoOp's xd_train.sh and xd_test.sh: trained (and tested) on the source, tested on the targets."""
    tag, source = f"{cfg}_{s.shots}shots", Path(s.source).stem
    jobs = []
    for seed in s.seeds:
        training = s.job(trainer, cfg, s.source, seed, f"{source}/{trainer}/{tag}", *shots(s))
        jobs.append(training)
        for target in targets:
            folder = f"evaluation/{trainer}/{tag}/{Path(target).stem}"
            jobs.append(s.job(trainer, cfg, target, seed, folder, source=training))
    return jobs


def table1(s: Settings) -> list[Job]:
    """The paper's domain generalization, ViT-B/16, with all rows that this project has."""
    targets = s.targets or SHIFTED
    everywhere = (s.source, *targets)
    jobs = zeroshot(s, everywhere) + ablation(s)
    jobs += trained(s, "CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1", targets) + trained(s, "TipAdapter", "vit_b16", targets)
    return jobs + compared(s, everywhere, TABLE1)


def table2(s: Settings) -> list[Job]:
    """The paper's cross-dataset transfer, ViT-B/16, with all rows that this project has."""
    targets, coop = s.targets or TEN, coop_prompt(LONG)
    jobs = zeroshot(s, targets) + evaluations(s, coop, "CoOp", coop.cfg, targets) + cross_dataset(s)
    return jobs + compared(s, targets, TABLE2)
