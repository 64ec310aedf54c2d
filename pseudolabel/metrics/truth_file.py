"""What an AP is measured against: the masks of a COCO file that some categories and images have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.errors import InputError
from pseudolabel.metrics.categories import file_ids
from pseudolabel.metrics.objects import Truth, only_images, read_truth


@dataclass(frozen=True, slots=True)
class TruthFile:
    """The true objects of a file, by whose categories a student's are renumbered.

    `ids` has the file's category id for each of the student's; `images` the rows of the file, in its order.
    """

    where: str
    truth: Truth
    ids: Mapping[int, int]
    images: tuple[dict[str, Any], ...]

    def on(self, images: Iterable[int]) -> "TruthFile":
        """The same on these images alone.

        Raises:
            InputError: the file has none of them, or no mask on them.
        """
        wanted = list(images)
        known = {number for number in wanted if number in self.truth.sizes_hw}
        if not known:
            raise InputError(
                f"{self.where}: none of its {len(self.images)} images has an id of the {len(wanted)} images that are "
                "looked at; one file has to say the ids of both"
            )
        left = replace(self, truth=only_images(self.truth, known))
        left.check_masks()
        return left

    def check_masks(self) -> None:
        """Raises InputError where there is no object to find, so that an AP would say nothing."""
        looked_for = set(self.ids.values())
        if not any(row.category_id in looked_for and not row.is_crowd for row in self.truth.objects):
            reasons = "".join(f"; {count} left out: {reason}" for reason, count in self.truth.left_out.items() if count)
            raise InputError(f"{self.where}: no true mask of the classes that are looked for{reasons}")

    def check_size(self, image_id: int, size_hw: tuple[int, int]) -> None:
        """Raises InputError where an image has another size than the file says: its masks would lie elsewhere."""
        said = self.truth.sizes_hw.get(image_id)
        if said is not None and said != size_hw:
            raise InputError(
                f"{self.where}: image {image_id} is {said[0]}x{said[1]} (height x width) there and "
                f"{size_hw[0]}x{size_hw[1]} as it is read; masks and images have to be turned alike"
            )


def read_truth_file(path: Path, categories: Sequence[Mapping[str, Any]]) -> TruthFile:
    """The true masks of a COCO file, for what has these categories.

    Args:
        categories: of the student; they meet the file's as `file_ids` has it.

    Raises:
        InputError: the file is damaged, or has none of the categories or no mask of them.
    """
    content = read_coco(path)
    truth = read_truth(content)
    file = TruthFile(
        str(path), truth, file_ids(categories, truth.class_names, where=str(path)), tuple(content["images"])
    )
    file.check_masks()
    return file


def file_name(image: Mapping[str, Any], where: Path | str) -> str:
    """Of a row of a COCO file's images.

    Raises:
        InputError: it has none.
    """
    name = image.get("file_name")
    if not isinstance(name, str):
        raise InputError(f"{where}: image {image['id']} has no file_name")
    return name
