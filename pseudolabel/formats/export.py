"""Labels as a folder in the form that a tool wants: written shard by shard, read again and compared, then named.

Everything is written below a temporary name beside the folder. It takes its own name when all of it is on the disk and
the masks that the files have were compared with those that went in; whatever ends the work earlier leaves nothing.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError, QualityGateError, StaleOutputError
from pseudolabel.files import fsync, machine_faults_named, sweep_temporaries, temporary_name, write_text_atomically
from pseudolabel.formats.coco import ShardTables
from pseudolabel.formats.export_images import Choice, ImageMaker, Naming, Pictures, numbered_categories
from pseudolabel.formats.profile import About, ExportImage, ExportOptions, Images, Profile
from pseudolabel.formats.profiles import PROFILES
from pseudolabel.formats.round_trip import RoundTrip

Row = dict[str, Any]
MARK = "export.json"  # what a folder of ours holds
DECISIONS = ("keep", "review", "box_only")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is exported, and how.

    Args:
        to: a name of `PROFILES`.
        decisions: of the labels that go out.
        min_score: least score of a label.
        split: share of the images that are to learn from; None for the split of the data.
        min_round_trip: least mean IoU of the masks with those that the files have.
        overwrite: replace a folder that an export made.
    """

    to: str
    decisions: Sequence[str] = DECISIONS
    min_score: float = 0.0
    split: float | None = None
    min_round_trip: float = 0.95
    overwrite: bool = False
    options: ExportOptions = field(default_factory=ExportOptions)


@dataclass(frozen=True, slots=True)
class Exportable:
    """Labels with their pictures.

    Args:
        shards: gives manifest and pseudo table of one shard after the other, each time that it is called.
        header: `categories`, and optionally `info` and `licenses`.
        pictures: where the images are read.
    """

    shards: Callable[[], Iterable[ShardTables]]
    header: Mapping[str, Any]
    pictures: Pictures
    exclusive: str = "pseudolabel fuse RUN --exclusive all"  # what to type for masks that share no pixel; "" of such


def export(labels: Exportable, out: Path, request: ExportRequest) -> Row:
    """Write a folder; what went into it, as its `export.json` says.

    Raises:
        ConfigError: no such profile.
        StaleOutputError: `out` is there; nothing that is not an export is ever replaced.
        QualityGateError: the files keep less of the masks than `min_round_trip`.
        InputError: there is no image, or a table or an image is damaged.
        MachineError: the folder or the disk refuses.
    """
    profile_class: type[Profile] = PROFILES.load(request.to)
    check_out(out, overwrite=request.overwrite)
    with _published(out) as folder:
        made = _Export(labels, folder, request, profile_class)
        summary = {"profile": request.to, "folder": str(out), **made.write(), "next": made.profile.next_step(out)}
        check_round_trip(summary, request, labels.exclusive if profile_class.one_owner else "")
        told = {"made_by": "pseudolabel export", **summary, "options": asdict(request)}
        write_text_atomically(folder / MARK, json.dumps(told, indent=1, ensure_ascii=False))
    return summary


def check_out(out: Path, *, overwrite: bool) -> None:
    """Pass where a new folder may stand.

    Raises:
        StaleOutputError: what is there is not ours, or may not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARK).is_file():
        raise StaleOutputError(f"{out} is there and is no export of ours ({MARK} is missing): give another --out")
    if not overwrite:
        raise StaleOutputError(f"{out} holds an export: give another --out, or replace it with --overwrite")


def check_round_trip(summary: Row, request: ExportRequest, exclusive: str) -> None:
    """Pass where the files keep enough of the masks; `exclusive` is what to type for masks that share no pixel.

    Raises:
        QualityGateError: they do not; nothing is kept of the export.
    """
    found = summary["round_trip"]
    if found["mean_iou"] < request.min_round_trip:
        worst = f"worst {found['worst_iou']:.4f}: {found['worst']}; {found['lost']} of {found['masks']} lost"
        raise QualityGateError(
            f"{request.to}: read again, the mean IoU of masks is {found['mean_iou']:.4f} ({worst}), "
            f"less than --min-round-trip {request.min_round_trip}; nothing was written. This form loses "
            f"{PROFILES.load(request.to).about_loss}. Choose other options, another form, or a lower limit"
            + (f"; masks that share no pixel are made by  {exclusive}" if exclusive else "")
        )


class _Export:
    """One export on its way into a temporary folder."""

    def __init__(self, labels: Exportable, folder: Path, request: ExportRequest, profile_class: type[Profile]) -> None:
        self.labels, self.folder, self.request = labels, folder, request
        options = request.options
        self.categories = numbered_categories(labels.header["categories"], options.ids)
        self.naming, splits = Naming.of(labels.shards(), request.split, wants_val=profile_class.wants_val)
        if not splits:
            raise InputError(
                "there is no usable image to export: pseudolabel status RUN --rejected  lists what was refused"
            )
        header = labels.header
        about = About(
            list(self.categories.values()),
            dict(header.get("info") or {}),
            header.get("licenses") or [],
            [name for name in ("train", "val", "test") if name in splits],
        )
        self.choice = Choice(
            request.decisions, request.min_score, profile_class.takes_boxes, profile_class.takes_crowds
        )
        self.profile = profile_class(folder, about, options)

    def write(self) -> Row:
        """Write all, read it again; figures for people."""
        maker, counts, by_split = self._maker(), Counter[str](), Counter[str]()
        for image in maker.images(self.labels.shards()):
            self._place(image)
            self.profile.add(image)
            by_split[image.split] += 1
            counts.update(_kinds(image))
        self.profile.close()
        if not by_split:
            raise InputError("no image could be worked on, so that there is nothing to export")
        again = RoundTrip()
        for image in self._maker().images(self.labels.shards()):
            again.add(image, self.profile.reread(image))
        left_out = {why: count for why, count in sorted(maker.left_out.items()) if count}
        known = {str(old): one.id for old, one in self.categories.items()}
        images = {"images": by_split.total(), "splits": dict(sorted(by_split.items()))}
        told = {"hint": self.profile.about_boxes} if counts["boxes_alone"] and self.profile.about_boxes else {}
        return {**images, **counts, **told, "left_out": left_out, "round_trip": again.as_dict(), "category_ids": known}

    def _maker(self) -> ImageMaker:
        return ImageMaker(self.choice, self.categories, self.naming, self.labels.pictures)

    def _place(self, image: ExportImage) -> None:
        path = self.profile.image_path(image)
        if path is not None and self.request.options.images != "none":
            place_picture(self.folder / path, image, self.request.options.images)


def place_picture(path: Path, image: ExportImage, how: Images) -> None:
    """Copy or link a picture; one that has to be turned, or that is no file on this disk, is always copied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = image.locate() if how == "link" else None
    if source is not None:
        path.symlink_to(source)
        return
    with path.open("xb") as file:
        file.write(image.load())


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and vanishes when not."""
    with machine_faults_named(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(out.parent)
        folder, former = (out.parent / temporary_name(out.name) for _ in range(2))
        folder.mkdir()
        try:
            yield folder
            os.sync()  # of very many files one call takes less long than fsync of each
            if (out / MARK).exists():
                out.rename(former)
            folder.rename(out)
            fsync(out.parent)
        finally:
            for left in (folder, former):
                shutil.rmtree(left, ignore_errors=True)


def _kinds(image: ExportImage) -> Counter[str]:
    crowds = sum(one.is_crowd for one in image.objects)
    boxes = sum(one.mask is None for one in image.objects)
    return Counter(masks=len(image.objects) - crowds - boxes, boxes_alone=boxes, crowds=crowds)
