"""`yolo`: what `yolo segment train` reads: images/, labels/, data.yaml.

A line of `labels/SPLIT/NAME.txt` is an object: its class from 0, then x and y of its outline as shares of the image.
"""

from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import yaml

from pseudolabel import rle
from pseudolabel.files import write_text_atomically
from pseudolabel.formats.profile import ExportImage, ExportObject, Profile, filled, object_rings


class YoloProfile(Profile):
    """A file of labels per image, an empty one for an image without objects."""

    wants_val: ClassVar[bool] = True
    about_loss: ClassVar[str] = "scores, decisions, ids and attributes; crowds and boxes without a mask"

    def image_path(self, image: ExportImage) -> PurePosixPath:
        return PurePosixPath("images", image.split) / image.name

    def add(self, image: ExportImage) -> None:
        lines = [line for one in image.masked for line in self._lines(one, image)]
        path = self._labels(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def close(self) -> None:
        train = "train" if "train" in self.about.splits else self.about.splits[0]
        known = {"train": train, "val": "val" if "val" in self.about.splits else train}
        known |= {"test": "test"} if "test" in self.about.splits else {}
        names = {one.place: one.name for one in self.about.categories}
        content = {**{name: f"images/{split}" for name, split in known.items()}, "names": names}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text_atomically(self.folder / "data.yaml", f"# made by pseudolabel export\n{text}")

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        lines = iter(self._labels(image).read_text(encoding="ascii").splitlines())
        counts = [len(self._lines(one, image)) if one in image.masked else 0 for one in image.objects]
        return [self._mask([next(lines) for _ in range(count)], image) for count in counts]

    def next_step(self, out: Path) -> str:
        return f"yolo segment train data={out / 'data.yaml'} model=yolo11n-seg.pt"

    def _labels(self, image: ExportImage) -> Path:
        return self.folder / "labels" / image.split / image.name.with_suffix(".txt")

    def _lines(self, one: ExportObject, image: ExportImage) -> list[str]:
        assert one.mask is not None, "a box alone has no outline"
        height, width = image.size_hw
        rings = object_rings(one.mask, parts=self.options.parts, holes=self.options.holes)
        shares = [(ring / (width, height)).ravel().tolist() for ring in rings]
        return [" ".join([str(one.category.place), *(f"{value:.6f}" for value in share)]) for share in shares]

    def _mask(self, lines: list[str], image: ExportImage) -> rle.Rle | None:
        height, width = image.size_hw
        shares = [np.array(line.split()[1:], dtype=np.float64).reshape(-1, 2) for line in lines]
        rings = [(share * (width, height)).ravel().tolist() for share in shares]
        return filled(rings, image.size_hw) if rings else None
