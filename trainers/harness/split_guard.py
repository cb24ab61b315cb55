"""No test image is learned from, and no epoch is chosen by one."""

from typing import Any

from tlla.errors import InputError
from tlla.fingerprint import files_sha256_and_identities
from tlla.image_files import one_line


class SplitFiles:
    """What one look at the image files of all splits finds.

    Args:
        dataset: Its train_x, val and test are lists of items with an impath; val may be None.

    Attributes:
        sha256: By split, see `tlla.fingerprint.files_sha256`.
    """

    def __init__(self, dataset: Any):
        self.sha256: dict[str, str] = {}
        files: dict[str, dict] = {}
        for split in ("train_x", "val", "test"):
            paths = [item.impath for item in getattr(dataset, split) or []]
            self.sha256[split], identities = files_sha256_and_identities(paths)
            files[split] = dict(zip(identities, paths, strict=True))
        self.count = {split: len(found) for split, found in files.items()}
        pairs = (("train_x", "test"), ("val", "test"), ("val", "train_x"))
        self._shared = {(a, b): [path for key, path in files[a].items() if key in files[b]] for a, b in pairs}

    def shared(self, split: str, other: str) -> list[str]:
        """Paths of the images of a split that are images of another one, too, be it under other names."""
        return self._shared[split, other]


def separate_splits(trainer: Any) -> None:
    """Makes sure that a ClipTrainer learns from no test image, and prints which val images are no fair choice.

    Raises:
        InputError: Training images are test images.
    """
    name, files = trainer.cfg.DATASET.NAME, trainer.split_files
    if trainer.learns_from_images and (found := files.shared("train_x", "test")):
        raise InputError(
            f"{name} has its test images as training images, {len(found)} of {files.count['train_x']}, such as "
            f"{one_line(found[0])}, so that its test would say nothing: train on other images, then test here with "
            "--eval-only --model-dir"
        )
    found = files.shared("val", "test")
    trainer.record.update(val_images_in_test=len(found))
    if found:
        trainer.without_val(f"{len(found)} of the {files.count['val']} val images of {name} are test images")
    elif not files.count["val"]:
        trainer.without_val(f"{name} has no val images")
    if trainer.learns_from_images and (learned := files.shared("val", "train_x")):
        print(f"Note: {len(learned)} of the {files.count['val']} val images of {name} are training images")
