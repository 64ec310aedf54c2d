"""`coco`: annotations/instances_SPLIT.json and images/, as COCO itself is laid out."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pseudolabel import rle
from pseudolabel.formats.coco_part import CocoPart
from pseudolabel.formats.profile import About, Category, ExportImage, ExportOptions, Profile


class CocoProfile(Profile):
    """A COCO file per split."""

    takes_boxes: ClassVar[bool] = True
    about_boxes: ClassVar[str] = (
        "torchvision and pycocotools' annToMask fail on a box without a mask; "
        "--decisions keep --decisions review leaves them out"
    )
    takes_crowds: ClassVar[bool] = True
    own_supercategory: ClassVar[bool] = False  # a class without a supercategory is its own
    about_loss: ClassVar[str] = "nothing; holes of polygons where they are filled"

    def __init__(self, folder: Path, about: About, options: ExportOptions) -> None:
        super().__init__(folder, replace(about, categories=[self._category(one) for one in about.categories]), options)
        about = self.about
        self.parts = {split: CocoPart(self.json_path(split), about, options) for split in about.splits}

    @classmethod
    def _category(cls, one: Category) -> Category:
        if not cls.own_supercategory or one.record.get("supercategory") not in (None, "", "none"):
            return one
        return replace(one, record={**one.record, "supercategory": one.name})

    def json_path(self, split: str) -> Path:
        """Where the file of a split stands."""
        return self.folder / "annotations" / f"instances_{split}.json"

    def file_name(self, image: ExportImage) -> str:
        """What the file calls an image: where it is below images/, or the user's own name where none are written."""
        return image.file_name if self.options.images == "none" else str(image.name)

    def add(self, image: ExportImage) -> None:
        self.parts[image.split].add(image, self.file_name(image))

    def close(self) -> None:
        for part in self.parts.values():
            part.close()

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        return self.parts[image.split].reread(image)

    def next_step(self, out: Path) -> str:
        path = out / self.json_path(self.about.splits[0]).relative_to(self.folder)
        return f"python -c 'from pycocotools.coco import COCO; COCO(\"{path}\")'  # images in {out / 'images'}"
