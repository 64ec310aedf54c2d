"""How much of the masks is left when the files of an export are read again."""

from dataclasses import dataclass
from typing import Any

from pseudolabel import rle
from pseudolabel.formats.profile import ExportImage


@dataclass
class RoundTrip:
    """The IoU of masks with those that the files have, summed up object by object; of a lost mask it is 0."""

    objects: int = 0
    total: float = 0.0
    worst: float = 1.0
    worst_object: str = ""
    lost: int = 0

    def add(self, image: ExportImage, found: list[rle.Rle | None]) -> None:
        """Compare the masks of an image with what was read again, in the same order."""
        for one, again in zip(image.objects, found, strict=True):
            if one.mask is None:
                continue
            iou = 0.0 if again is None else mask_iou(one.mask, again)
            self.objects += 1
            self.total += iou
            self.lost += again is None
            if iou < self.worst:
                self.worst, self.worst_object = iou, f"{image.file_name} id {one.id}"

    @property
    def mean(self) -> float:
        return self.total / self.objects if self.objects else 1.0

    def as_dict(self) -> dict[str, Any]:
        """What `export.json` says of it."""
        told = {"masks": self.objects, "mean_iou": self.mean, "worst_iou": self.worst, "lost": self.lost}
        return told | ({"worst": self.worst_object} if self.worst_object else {})


def mask_iou(one: rle.Rle, other: rle.Rle) -> float:
    """IoU of two masks of the same image."""
    from pycocotools import mask as coco_mask

    pair = [{"size": mask["size"], "counts": mask["counts"].encode("ascii")} for mask in (one, other)]
    return float(coco_mask.iou(pair[:1], pair[1:], [0])[0, 0])
