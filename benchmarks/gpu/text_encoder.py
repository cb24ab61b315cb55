"""Part text: class features of a prompt and its perturbations, and training steps, beside 77 tokens a prompt."""

from .. import class_set, training
from .card import kernels
from .sizes import Rows, Sizes


def measure(sizes: Sizes) -> Rows:
    """In amp, SAPT's default, and in fp16, CoOp's."""
    most, last = sizes.trained_classes[0], (sizes.backbone, sizes.batch, sizes.device)
    for precision in ("amp", "fp16"):
        for n_classes in sizes.trained_classes:
            for what in training.LAMBDAS:
                label = {"step": what.replace("naive CoOp", "CoOp, 77 tokens"), "K": n_classes, "precision": precision}
                yield label, training.cost, what, n_classes, *last, sizes.repeats, precision
    for what, name in (("ours", "ours"), ("naive", "77 tokens")):
        label = {"class features": (sizes.perturbations + 1) * most, "text encoder": name, "precision": "amp"}
        args = what, most, sizes.perturbations + 1, sizes.backbone, sizes.device, sizes.repeats, "amp"
        yield label, class_set.cost, *args
    label = {"kernels of": "SAPT step", "K": most, "precision": "amp"}
    yield label, lambda: kernels(training.Step("SAPT", most, *last, "amp"), sizes.device)
