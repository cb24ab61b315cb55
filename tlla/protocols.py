"""How each method's authors tested it: views, AugMix, template and settings on each dataset, from their public code.

The common protocol gives all methods the same views and prompts: 64 views, AugMix on the ten fine-grained sets only.
Precision, and the order of the images for online methods, are the run's in both. docs/protocols.md has the table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .paper import CROSS_DATASET, IMAGENET

COMMON, AUTHORS = "common", "authors"
ONE_TEMPLATE = "a photo of a {}."  # of TPT and all that follow its code, on every dataset
SHIFTED, TEN = IMAGENET.targets, CROSS_DATASET.targets
CONFIGS = dict(  # dataset -> name of its configs
    zip(
        (*IMAGENET.columns, *TEN),
        (
            *("imagenet", "imagenet_a", "imagenetv2", "imagenet_r", "imagenet_sketch"),
            *("caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "fgvc_aircraft"),
            *("sun397", "dtd", "eurosat", "food101", "ucf101"),
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class Setup:
    """A method on a dataset.

    Attributes:
        n_views: With the centre crop, which is the only one if this is 1.
        augmix: Whether the other views have AugMix on top of crop and flip.
        template: A template or an ensemble; "": the dataset's own, as CoOp has it.
        settings: Of the method, by key.
    """

    n_views: int = 64
    augmix: bool = False
    template: str = ONE_TEMPLATE
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AuthorsProtocol:
    """What a method's authors did.

    Attributes:
        source: Repository and commit, or the paper if there is no code.
        setups: By dataset; they have run nothing else, or not with what is here.
        tuned: Keys of the method that have a value of their own on each dataset: configs/trainers/<method>.
        lacks: What of it is not here.
    """

    source: str
    setups: Mapping[str, Setup]
    tuned: tuple[str, ...] = ()
    lacks: str = ""


def _on(names: Iterable[str], setup: Setup) -> dict[str, Setup]:
    return dict.fromkeys(names, setup)


_TPT = _on(IMAGENET.columns, Setup()) | _on(TEN, Setup(augmix=True))
_PLAIN = _on(CONFIGS, Setup())
# CoOp's own templates on these; the seven of Tip-Adapter on the others, or all 80.
_OWN = ("OxfordPets", "OxfordFlowers", "FGVCAircraft", "DescribableTextures", "EuroSAT", "Food101", "UCF101")
_ALL_80 = ("ImageNetR", "ImageNetSketch")


def _cache_setups(with_views: Iterable[str]) -> dict[str, Setup]:
    """TDA's and DPE's: AugMix views on some datasets, one crop on the others."""
    found = {}
    for name in CONFIGS:
        template = "" if name in _OWN else "imagenet80" if name in _ALL_80 else "imagenet7"
        found[name] = Setup(64, True, template) if name in with_views else Setup(1, False, template)
    return found


PROTOCOLS = {
    "STSS": AuthorsProtocol("arXiv 2501.18864", _TPT),
    "TPT": AuthorsProtocol("azshue/TPT@63ecbac", _TPT),
    "CTPT": AuthorsProtocol(
        "hee-suk-yoon/C-TPT@085e6c2",
        {
            "ImageNet": Setup(settings={"LAMBDA": 50.0}),  # by their script for the fine-grained sets
            **_on(SHIFTED, Setup(augmix=True, settings={"LAMBDA": 20.0})),
            **_on(TEN, Setup(augmix=True, settings={"LAMBDA": 50.0})),
        },
    ),
    "RTPT": AuthorsProtocol("TomSheng21/R-TPT@e085f13", _TPT, lacks="its attack on the test images"),
    "TPS": AuthorsProtocol(
        "elaine-sui/TPS@556db0f",
        {name: replace(setup, template="imagenet80") for name, setup in _TPT.items()},
        lacks="its class descriptions by GPT-4: this is its script without them",
    ),
    "ZERO": AuthorsProtocol("FarinaMatteo/zero@c609f7c", _PLAIN),
    "MTA": AuthorsProtocol("MaxZanella/MTA@cafafdf", _PLAIN),
    "VTE": AuthorsProtocol(
        "mariodoebler/test-time-adaptation@8b2ed63",
        _on(IMAGENET.columns, Setup(template="imagenet80")),
        lacks="its ensembles for the fine-grained sets",
    ),
    "TDA": AuthorsProtocol("kdiAAA/TDA@e697fb0", _cache_setups(SHIFTED), ("POS_ALPHA", "POS_BETA")),
    "DPE": AuthorsProtocol(
        "zhangce01/DPE-CLIP@fecae5a",
        _cache_setups(IMAGENET.columns) | {"StanfordCars": Setup(n_views=1)},
        ("ALPHA", "BETA", "LR", "ALIGN", "PREDICT_ON"),
        "CuPL's sentences on each class, and on StanfordCars a second template",
    ),
}
