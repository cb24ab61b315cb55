"""The paper's results, to print beside ours: arXiv 2501.18864, ViT-B/16, top-1 accuracy in %.

Rows have the names of our trainers: ZeroshotCLIP is the paper's CLIP, CTPT its C-TPT, TipAdapter its Tip-Adapter,
SAPT its "SAPT+CoOp", TLLA its TLLA (FGA in version 2). None: the paper has no number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

AVERAGE, OOD_AVERAGE = "average", "OOD average"  # over the source and the targets; over the targets
HALVES = ("base", "new")  # of the classes
H_AVERAGE = "H of the averages"


@dataclass(frozen=True)
class Benchmark:
    """Datasets that are averaged together.

    Attributes:
        title: Headline of its table.
        source: The dataset that the prompts are trained on. In `columns` only if `with_source`.
        targets: The others, in the paper's order.
        with_source: Whether the source is a column.
        paper: Method -> numbers in the order of `columns` + `averages`.
    """

    title: str
    source: str
    targets: tuple[str, ...]
    with_source: bool = True
    paper: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Datasets in the order of the table."""
        return (self.source, *self.targets) if self.with_source else self.targets

    @property
    def averages(self) -> dict[str, tuple[str, ...]]:
        """Heading -> the datasets that it is the mean of."""
        return {AVERAGE: self.columns} | ({OOD_AVERAGE: self.targets} if self.with_source else {})

    @property
    def harmonic(self) -> dict[str, tuple[str, str]]:
        """Heading -> the columns or averages that it is the harmonic mean of."""
        return {}

    @property
    def headings(self) -> tuple[str, ...]:
        """All columns in the order of the table."""
        return (*self.columns, *self.averages, *self.harmonic)

    def published(self, method: str) -> dict[str, float]:
        """The paper's numbers of a method by column."""
        values = zip((*self.columns, *self.averages), self.paper.get(method, ()), strict=False)
        return {column: value for column, value in values if value is not None}


@dataclass(frozen=True)
class SomeClasses(Benchmark):
    """Datasets with the halves of their classes, without averages: no protocol averages over both halves."""

    @property
    def averages(self) -> dict[str, tuple[str, ...]]:
        """None."""
        return {}


@dataclass(frozen=True)
class BaseToNew(Benchmark):
    """Trained on the base classes of each dataset in `targets`, tested on its base and on its new classes.

    CoCoOp, arXiv 2203.05557, table 2: H is the harmonic mean of both; for the averages, that of the averages.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Base and new of each dataset."""
        return tuple(f"{name} ({half})" for name in self.targets for half in HALVES)

    @property
    def averages(self) -> dict[str, tuple[str, ...]]:
        """Over the base classes, over the new ones."""
        return {f"{AVERAGE} ({half})": tuple(f"{name} ({half})" for name in self.targets) for half in HALVES}

    @property
    def harmonic(self) -> dict[str, tuple[str, str]]:
        """H of each dataset, and of the averages."""
        base, new = HALVES
        own = {f"{name} (H)": (f"{name} ({base})", f"{name} ({new})") for name in self.targets}
        return own | {H_AVERAGE: (f"{AVERAGE} ({base})", f"{AVERAGE} ({new})")}

    @property
    def headings(self) -> tuple[str, ...]:
        """Base, new and H of each dataset, then of the averages."""
        return tuple(heading for h, (base, new) in self.harmonic.items() for heading in (base, new, h))


IMAGENET = Benchmark(
    "ImageNet and its variants",
    "ImageNet",
    ("ImageNetA", "ImageNetV2", "ImageNetR", "ImageNetSketch"),
    paper={
        "ZeroshotCLIP": (68.34, 49.89, 61.88, 77.65, 48.24, 61.20, 59.42),
        "CoOp": (71.51, 49.71, 64.20, 75.21, 47.99, 61.72, 59.28),
        "CoCoOp": (71.02, 50.63, 64.07, 76.18, 48.75, 62.13, 59.91),
        "TipAdapter": (70.75, 51.04, 63.41, 77.76, 48.88, 62.37, 60.27),
        "TPT": (69.70, 53.67, 64.30, 73.90, 46.40, 61.59, 59.57),
        "DiffTPT": (70.30, 55.68, 65.10, 75.00, 46.80, 62.58, 60.64),
        "CTPT": (None, 52.90, 63.40, 78.00, 48.50, None, 60.70),
        "ZERO": (69.06, 61.35, 64.13, 77.28, 48.29, 64.02, 62.76),
        "MTA": (69.29, 57.41, 63.61, 76.92, 48.58, 63.16, 61.63),
        "PromptAlign": (None, 59.37, 65.29, 79.33, 50.23, None, 63.56),
        "TDA": (69.51, 60.11, 64.67, 80.24, 50.54, 65.01, 63.89),
        "DPE": (71.91, 59.63, 65.44, 80.40, 52.26, 65.93, 64.43),
        "TPT+CoOp": (73.30, 56.88, 66.60, 73.80, 49.40, 64.00, 61.67),
        "DiffTPT+CoOp": (75.00, 58.09, 66.80, 73.90, 49.50, 64.66, 62.07),
        "CTPT+CoOp": (72.90, 52.73, 65.61, 76.46, 48.63, 63.27, 60.86),
        "ZERO+CoOp": (73.61, 63.17, 66.82, 77.71, 48.52, 65.97, 64.06),
        "MTA+CoOp": (73.99, 59.29, 66.97, 78.20, 49.96, 65.68, 63.61),
        "SAR+CoOp": (73.03, 55.35, 65.89, 77.09, 48.65, 64.00, 61.75),
        "SAPT": (70.79, 51.04, 64.41, 77.66, 49.31, 62.64, 60.61),
        "STSS+CoOp": (73.99, 64.00, 67.11, 77.92, 49.36, 66.48, 64.60),
        "TLLA": (74.01, 65.90, 67.23, 81.24, 51.81, 68.04, 66.55),
    },
)

CROSS_DATASET = Benchmark(
    "Cross-dataset transfer from ImageNet",
    "ImageNet",
    (
        "Caltech101",
        "OxfordPets",
        "StanfordCars",
        "OxfordFlowers",
        "FGVCAircraft",
        "SUN397",
        "DescribableTextures",
        "EuroSAT",
        "Food101",
        "UCF101",
    ),
    with_source=False,
    paper={
        "ZeroshotCLIP": (93.35, 88.25, 65.48, 67.44, 23.67, 62.59, 44.27, 42.01, 83.65, 65.13, 63.58),
        "CoOp": (93.70, 89.14, 64.51, 68.71, 18.47, 64.15, 41.92, 46.39, 85.30, 66.55, 63.88),
        "TPT": (94.16, 87.79, 66.87, 68.98, 24.78, 65.50, 47.75, 42.44, 84.67, 68.04, 65.10),
        "ZERO": (93.66, 87.75, 68.04, 67.68, 25.21, 65.03, 46.12, 34.33, 86.53, 67.77, 64.21),
        "TPT+CoOp": (93.75, 88.93, 67.06, 68.25, 25.89, 66.40, 47.15, 48.78, 83.82, 66.53, 65.66),
        "TLLA": (96.96, 91.28, 68.93, 72.11, 26.97, 69.29, 49.76, 47.58, 84.95, 68.17, 67.60),
    },
)

EMOJI = Benchmark(
    "The embedded benchmark",
    "Emoji",
    (
        "EmojiTwemoji",
        "EmojiOpenMoji",
        "EmojiOpenMojiBlack",
        "EmojiFluentFlat",
        "EmojiFluentContrast",
        "EmojiFluent3D",
    ),
)

EMOJI_SCENES = Benchmark(
    "The embedded benchmark in scenes",
    "EmojiScenes",
    tuple(name.replace("Emoji", "EmojiScenes", 1) for name in EMOJI.targets),
)

BENCHMARKS = (IMAGENET, CROSS_DATASET, EMOJI, EMOJI_SCENES)
BACKBONE = "ViT-B/16"  # of all these results
