"""The experiments of the paper as lists of jobs. Folders and the order of arguments are CoOp's."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import train
from tlla import protocols
from tlla.errors import InputError, nearest
from tlla.protocols import AUTHORS, COMMON, PROTOCOLS

from . import traits
from .flags import LONG, SHORT
from .job import Job

SHIFTED, TEN = (tuple(map(protocols.CONFIGS.get, names)) for names in (protocols.SHIFTED, protocols.TEN))
CONFIGS = {  # of the tables, by trainer
    **{"SAPT": LONG, "CoCoOp": "vit_b16_c4_ep10_batch1_ctxv1"},
    **dict.fromkeys(("TipAdapter", "ZeroshotCLIP", "Compare"), "vit_b16"),
}
PROTOCOL_KEY = "TRAINER.VIEWS.PROTOCOL"
YAML = (".yaml", ".yml")
LEARNED = "prompt_learner"  # the folder of a run that CoOp and all like it keep the prompt in
PLANNED = {  # keys that a plan sets for each run, and what sets them
    **{"SEED": "--seeds", "OUTPUT_DIR": "--out", "TRAINER.NAME": "--trainer", "DATASET.NAME": "a dataset's config"},
}


@dataclass(frozen=True)
class Settings:
    """What all plans share."""

    out: Path = Path("output")  # folder of all runs
    data: str = ""  # folder of the datasets; "" leaves it to the config
    seeds: tuple[int, ...] = (1, 2, 3)  # one run each
    shots: int = 16  # training images a class
    source: str = "imagenet"  # dataset that prompts are trained on
    targets: tuple[str, ...] = ()  # datasets to test on; (): the protocol's own
    rho: float | None = None  # SAPT's radius; None: the config's
    opts: tuple[str, ...] = ()  # further keys and values, for every run
    prompts: tuple[tuple[str, str], ...] = ()  # trainer and folder: prompts that are there, and are not trained
    cfg: str = ""  # a config for all trainers of a table; "": each has its own
    also: tuple[str, ...] = ()  # further rows of a table: methods at test time; trainer=config for one that trains
    protocol: str = COMMON  # of a table's methods at test time; authors: each as its authors had it

    def job(
        self, trainer: str, cfg: str, dataset: str, seed: int, folder: str, *opts: str, source: Job | None = None
    ) -> Job:
        """A job; the name of a config may be a file, too. InputError if a key is set in two ways."""
        words = (*opts, *self._rho(trainer, source, opts))
        for key in (*words[::2], *self.opts[::2]):
            if key in PLANNED:
                raise InputError(f"{key} cannot be set for all runs: it is set for each, by {PLANNED[key]}")
        if twice := [key for key in self.opts[::2] if key in words[::2]]:
            raise InputError(
                f"--opts sets {twice[0]}, which the plan itself sets and names the folders by: use the plan's own "
                "arguments"
            )
        if source and source.given:
            names = {"NAME": source.trainer, "SOURCE": source.config_values["DATASET"]["NAME"]}
            words += tuple(word for key, value in names.items() for word in (f"TRAINER.PROMPT.{key}", value))
        place = self.out / folder / f"seed{seed}"
        files = find_config(trainer, cfg), find("configs/datasets", dataset)
        return Job(trainer, *files, seed, place, self.data, (*words, *self.opts), source)

    def _rho(self, trainer: str, source: Job | None, opts: Sequence[str]) -> tuple[str, ...]:
        """Of a training that has it, and of the tests of its prompt by a trainer with the same key."""
        key = traits.rho_key(trainer)
        if self.rho is None or not key or (source and (source.given or traits.rho_key(source.trainer) != key)):
            return ()
        if key in opts[::2]:
            raise InputError(f"the plan sets {key} for each run: leave --rho out")
        return key, repr(float(self.rho))

    def config(self, trainer: str) -> str:
        """A trainer's config in the tables."""
        return self.cfg or CONFIGS[trainer]

    def as_authors(self, trainer: str) -> bool:
        """Whether a method at test time is tested as its authors had it."""
        return self.protocol == AUTHORS and trainer in PROTOCOLS


def find(folder: str, name: str, *more: str) -> str:
    """A config by its name in a folder, else in one of `more`, or by its path; InputError names the nearest."""
    if name.endswith(YAML):
        return str(Path(name).resolve()) if Path(name).is_file() else name
    known: dict[str, str] = {}
    for place in (*more[::-1], folder):
        known |= {path.stem: f"{place}/{path.name}" for path in (train.HERE / place).glob("*.yaml")}
    if name not in known:
        hint = nearest(name, list(known)) if known else "that folder has none: write one there, or give a file"
        raise InputError(f"there is no config {folder}/{name}.yaml: {hint}")
    return known[name]


def find_config(trainer: str, name: str) -> str:
    """A trainer's config."""
    folder, *more = (f"configs/trainers/{folder}" for folder in traits.config_folders(trainer))
    return find(folder, name, *more)


@dataclass(frozen=True)
class PromptPlan:
    """A prompt that is trained, as CoOp's main.sh describes it, or given."""

    trainer: str  # one that learns prompts
    cfg: str  # config of the trainer
    position: str = "end"  # where the class name stands
    n_ctx: int | None = None  # context vectors; None: as the config has it
    csc: bool = False  # whether each class has its own

    def tag(self, s: Settings) -> str:
        """CoOp's name of the settings in a folder; of a given prompt, which folder it is from."""
        stem = Path(self.cfg).stem
        if folder := dict(s.prompts).get(self.trainer):
            return f"{stem}_given_{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
        _, n_ctx, csc, position = _context(self.trainer, self.cfg, (*self.opts(), *s.opts))
        return f"{stem}_{s.shots}shots/nctx{n_ctx}_csc{csc}_ctp{position}"

    def opts(self, trainer: str = "", cfg: str = "") -> tuple[str, ...]:
        """For its training, or for another trainer's test of it: only what differs from that trainer's config."""
        trainer, cfg = trainer or self.trainer, cfg or self.cfg
        node, found = traits.node(trainer), []
        if traits.learns_prompt(trainer):  # the others take these two from the checkpoint
            words, n_ctx, csc, _ = _context(trainer, cfg)
            if self.n_ctx not in (None, n_ctx):  # initial words would count more than N_CTX
                found += [f"{node}.N_CTX", str(self.n_ctx)] + ([f"{node}.CTX_INIT", ""] if words else [])
            if self.csc and not csc:
                found += [f"{node}.CSC", "True"]
        if self.position != "end":
            found += [f"{node}.CLASS_TOKEN_POSITION", self.position]
        return tuple(found)

    def train(self, s: Settings, dataset: str, seed: int) -> Job:
        """Its training, or the run that is given in its place."""
        if folder := dict(s.prompts).get(self.trainer):
            files = find_config(self.trainer, self.cfg), find("configs/datasets", dataset)
            return Job(self.trainer, *files, seed, given_run(folder, seed, s.seeds), given=True)
        folder = f"{Path(dataset).stem}/{self.trainer}/{self.tag(s)}"
        return s.job(self.trainer, self.cfg, dataset, seed, folder, *shots(s), *self.opts())

    def as_given(self, s: Settings) -> "PromptPlan":
        """The prompt as its checkpoint has it, if it is given."""
        if self.trainer not in dict(s.prompts):
            return self
        ctx = self.train(s, s.source, s.seeds[0]).read_prompt().ctx
        return replace(self, n_ctx=ctx.shape[-2], csc=ctx.dim() == 3)


def given_run(folder: str, seed: int, seeds: Sequence[int]) -> Path:
    """The run of a seed in the folder of --prompts, which may also be that of the only seed."""
    own = Path(folder, f"seed{seed}")
    if (own / LEARNED).is_dir():
        return own
    if not Path(folder, LEARNED).is_dir():
        raise InputError(f"--prompts: there is no folder {own / LEARNED}, and {folder} is no run that learned a prompt")
    if len(seeds) > 1:
        raise InputError(f"--prompts: {folder} is one run: give the folder of seed1, seed2 ..., or one of --seeds")
    return Path(folder)


@functools.cache
def _context(trainer: str, cfg: str, opts: tuple[str, ...] = ()) -> tuple[str, int, bool, str]:
    """A config's initial words, number of context vectors, whether they are by class, the class name's place."""
    argv = ["--trainer", trainer, "--config-file", find_config(trainer, cfg)]
    argv += ["--dataset-config-file", "configs/datasets/imagenet.yaml", *opts]
    node = train.build_cfg(train.parse_args(argv)).TRAINER[traits.trainer_class(trainer).config_node]
    n_ctx = len(node.CTX_INIT.split()) or node.N_CTX
    return node.CTX_INIT, n_ctx, node.get("CSC", False), node.get("CLASS_TOKEN_POSITION", "end")


def shots(s: Settings) -> tuple[str, str]:
    """The key of the number of shots."""
    return "DATASET.NUM_SHOTS", str(s.shots)


def trainings(s: Settings, prompt: PromptPlan, dataset: str) -> list[Job]:
    """CoOp's main.sh: one training a seed."""
    return [prompt.train(s, dataset, seed) for seed in s.seeds]


def evaluations(
    s: Settings, prompt: PromptPlan, trainer: str, cfg: str, targets: Sequence[str], *opts: str
) -> list[Job]:
    """CoOp's eval.sh: a trainer tests, on each target, the prompt that was learned on the source."""
    if not traits.tests_prompts(trainer):
        raise InputError(f"{trainer} tests no learned prompt: choose one of CoOp, TLLA, TPT ... for the test")
    usual = traits.learns_prompt(trainer) and traits.learner_of(trainer) == prompt.trainer
    label = trainer if usual else f"{trainer}+{prompt.trainer}"
    prompt = prompt.as_given(s)
    jobs = []
    for target in targets:
        for seed in s.seeds:
            source = prompt.train(s, s.source, seed)
            if trainer == prompt.trainer and target == s.source and not source.given:
                jobs.append(source)  # has tested it already
                continue
            folder = f"{evaluation(s, trainer)}/{label}/{prompt.tag(s)}/{Path(target).stem}"
            more = (*prompt.opts(trainer, cfg), *protocol_keys(s, trainer, target), *opts)
            jobs.append(s.job(trainer, cfg, target, seed, folder, *more, source=source))
    return jobs


def evaluation(s: Settings, trainer: str) -> str:
    """The folder of tests."""
    return "evaluation_authors" if s.as_authors(trainer) else "evaluation"


def protocol_keys(s: Settings, trainer: str, target: str) -> tuple[str, ...]:
    """The authors' protocol; or the common one: AugMix on the fine-grained sets, as TPT and the paper have it.

    What --opts sets stays, also the protocol.
    """
    if s.as_authors(trainer):
        return PROTOCOL_KEY, AUTHORS
    key = f"{node}.AUGMIX" if (node := traits.views_node(trainer)) else ""
    free = key and Path(target).stem in TEN and not {key, PROTOCOL_KEY} & set(s.opts)
    return (key, "True") if free else ()


def domain_generalization(s: Settings, cfg: str = LONG) -> list[Job]:
    """TLLA on the source and its shifted variants."""
    return evaluations(s, PromptPlan("SAPT", cfg), "TLLA", cfg, (s.source, *(s.targets or SHIFTED)))


def cross_dataset(s: Settings, cfg: str = SHORT) -> list[Job]:
    """TLLA on ten other datasets."""
    return evaluations(s, PromptPlan("SAPT", cfg), "TLLA", cfg, s.targets or TEN)


def coop_prompt(cfg: str) -> PromptPlan:
    """CoOp with SAPT's 4 tokens and 50 epochs; CoOp's name of that config is ep50_ctxv1."""
    return PromptPlan("CoOp", cfg if cfg.endswith(YAML) else cfg.replace("_c4_ep50", "_ep50_ctxv1"))


def ablation(s: Settings, cfg: str = LONG) -> list[Job]:
    """CoOp, SAPT, STSS on CoOp's prompt, and TLLA, on the source and its shifted variants."""
    targets = (s.source, *(s.targets or SHIFTED))
    coop, sapt = coop_prompt(cfg), PromptPlan("SAPT", cfg)
    cells = ((coop, "CoOp", coop.cfg), (sapt, "SAPT", cfg), (coop, "TLLA", cfg), (sapt, "TLLA", cfg))
    return [job for prompt, trainer, config in cells for job in evaluations(s, prompt, trainer, config, targets)]


def base2new_train(s: Settings, dataset: str, cfg: str, trainer: str = "SAPT") -> list[Job]:
    """CoCoOp's base2new_train.sh: training on the first half of the classes."""
    common = f"{Path(dataset).stem}/shots_{s.shots}/{trainer}/{Path(cfg).stem}"
    opts = (*shots(s), "DATASET.SUBSAMPLE_CLASSES", "base")
    return [s.job(trainer, cfg, dataset, seed, f"base2new/train_base/{common}", *opts) for seed in s.seeds]


def base2new_test(s: Settings, dataset: str, cfg: str, trainer: str = "SAPT") -> list[Job]:
    """CoCoOp's base2new_test.sh: the prompt of the base classes on the new ones; without training both are tests."""
    common = f"{Path(dataset).stem}/shots_{s.shots}/{trainer}/{Path(cfg).stem}"
    folder, opts = f"base2new/test_new/{common}", (*shots(s), "DATASET.SUBSAMPLE_CLASSES", "new")
    jobs = []
    for base in base2new_train(s, dataset, cfg, trainer):
        source = base if base.trains else None
        jobs += [base, s.job(trainer, cfg, dataset, base.seed, folder, *opts, source=source)]
    return jobs
