"""From a list of Datum to the items that a loader collates."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torchvision.transforms as T
from torch.utils.data import Dataset
from yacs.config import CfgNode

from dassl.utils import ImageError, derive_seed, read_image, seeded

from .transforms import get_interpolation


class DatasetWrapper(Dataset):
    """Reads and transforms images; items are dicts with img, label, domain, impath and index.

    Several transforms give img, img2, ...; DATALOADER.RETURN_IMG0 adds img0, the image resized without augmentation;
    with DATALOADER.K_TRANSFORMS above 1 a training image's img is a list of that many augmented versions.

    Random transforms draw from numbers seeded by (the loader's seed, index), so that an item does not depend on which
    worker makes it or on which were made before. A subclass with an own ``__getitem__`` gets the same by
    ``with self.item_seed(index):``.

    Args:
        cfg: The configuration tree.
        data_source: The images.
        transform: A callable on a PIL image, a list or tuple of them, or None.
        is_train: For training.

    Raises:
        ValueError: K_TRANSFORMS above 1 without a transform.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence,
        transform: Callable | Sequence[Callable] | None = None,
        is_train: bool = False,
    ):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        self.seed: int | None = None
        if self.k_tfm > 1 and transform is None:
            raise ValueError(
                f"DATALOADER.K_TRANSFORMS {self.k_tfm} needs a transform, but there is none: set it to 1, or "
                "INPUT.NO_TRANSFORM to False"
            )
        steps = [T.Resize(cfg.INPUT.SIZE, interpolation=get_interpolation(cfg.INPUT.INTERPOLATION)), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(steps)

    def set_seed(self, seed: int) -> None:
        """Sets what the next pass's random transforms are drawn from; a SeededLoader does so."""
        self.seed = seed

    def item_seed(self, index: int) -> AbstractContextManager:
        """A block in which random numbers are this item's; without a seed, the global generators continue."""
        return nullcontext() if self.seed is None else seeded(derive_seed(self.seed, index))

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        try:
            img0 = read_image(item.impath)
        except ImageError as error:
            raise ImageError(f"{error} (item {idx} of {len(self)})") from error
        with self.item_seed(idx):
            output.update(self._images(img0))
        return output

    def _images(self, img0: Any) -> dict[str, Any]:
        """All versions of an image under their names."""
        images = {}
        if self.transform is None:
            images["img"] = img0
        else:
            transforms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
            for number, transform in enumerate(transforms, start=1):
                images["img" if number == 1 else f"img{number}"] = self._transform_image(transform, img0)
        if self.return_img0:
            images["img0"] = self.to_tensor(img0)
        return images

    def _transform_image(self, tfm: Callable, img0: Any) -> Any:
        """One version of an image, or a list of K_TRANSFORMS of them."""
        images = [tfm(img0) for _ in range(self.k_tfm)]
        return images[0] if len(images) == 1 else images
