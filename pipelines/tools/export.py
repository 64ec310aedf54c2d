"""`export`: the pseudo labels of a run as a folder that another tool reads."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError, RejectError
from pseudolabel.formats.coco import ShardTables
from pseudolabel.formats.export import Exportable, ExportRequest, check_out, export
from pseudolabel.formats.profile import ExportOptions
from pseudolabel.formats.profiles import PROFILES
from pseudolabel.images import load_image, read_file
from pseudolabel.pipelines.options.export import ExportConfig
from pseudolabel.pipelines.planning.made_categories import coco_header
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.commit import read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.typed import typed_command
from pseudolabel.progress import tracked
from pseudolabel.sources.place import is_url

Row = dict[str, Any]


def export_run(run: RunPaths, config: ExportConfig) -> Row:
    """Write the folder; what `export.json` says of it.

    Raises:
        InputError: `fuse` has not run to its end.
        As of `pseudolabel.formats.export.export`.
    """
    plan = read_plan(run)
    PROFILES.load(config.to)
    check_out(config.out, overwrite=config.overwrite)
    parts = [run.part("pseudo", shard, plan.num_shards) for shard in range(plan.num_shards)]
    missing = sum(not part.exists() for part in parts)
    if missing:
        there = f"{run.root}: {missing} of {len(parts)} parts of pseudo are missing"
        raise InputError(f"{there}; run  pseudolabel fuse {run.typed}  first")
    pictures, exclusive = RunPictures(plan), _exclusive(run, plan, parts[0])
    labels = Exportable(lambda: run_shards(run, plan), coco_header(run, parts), pictures, exclusive)
    return export(labels, config.out, _request(config))


def _exclusive(run: RunPaths, plan: Plan, part: Path) -> str:
    """What to type for masks that share no pixel; empty where fuse made such."""
    said = read_footer(part).config
    wanted = {**said, "exclusive": "all"}
    return "" if said == wanted else typed_command("fuse", run, plan, wanted, "--overwrite")


def export_text(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    counts = [f"{summary['images']} images ({_counted(summary['splits'])})", f"{summary['masks']} masks"]
    counts += [f"{summary[name]} {words}" for name, words in _MORE.items() if summary[name]]
    found = summary["round_trip"]
    worst = f", worst {found['worst_iou']:.4f} ({found['worst']})" if "worst" in found else ""
    alike = f", mean IoU {found['mean_iou']:.4f}{worst}" if found["masks"] else ""
    lines = [f"export: {', '.join(counts)} -> {summary['folder']}"]
    lines += [f"left out: {_counted(summary['left_out'])}"] if summary["left_out"] else []
    lines += [f"note: {summary['hint']}"] if "hint" in summary else []
    lines += [f"read again: {found['masks']} masks{alike}"]
    return "\n".join(lines)


_MORE = {"boxes_alone": "boxes without a mask", "crowds": "crowds"}


@dataclass(frozen=True)
class RunPictures:
    """The pictures of a run, where its plan says they are."""

    plan: Plan

    def stored(self, file_name: str) -> bytes:
        with _named(file_name):
            return read_file(self.plan.images_root, file_name)

    def upright_png(self, file_name: str) -> bytes:
        from PIL import Image

        with _named(file_name):
            pixels = load_image(self.plan.images_root, file_name, rule=self.plan.pixel_rule)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="PNG")
        return stream.getvalue()

    def path(self, file_name: str) -> str | None:
        root = self.plan.images_root
        if is_url(root) or not Path(root).is_dir():
            return None
        with _named(file_name):  # the file is there, and below the folder
            read_file(root, file_name, first_bytes=1)
        return str((Path(root) / file_name).resolve())


@contextmanager
def _named(file_name: str) -> Iterator[None]:
    """What is wrong with a picture, as an error of the user's that names it."""
    try:
        yield
    except RejectError as error:
        raise InputError(f"{file_name}: {error}; --images none exports labels alone") from None


def _request(config: ExportConfig) -> ExportRequest:
    options = ExportOptions(config.images, config.segmentation, config.parts, config.holes, config.ids)
    return ExportRequest(
        config.to, config.decisions, config.min_score, config.split, config.min_round_trip, config.overwrite, options
    )


def run_shards(run: RunPaths, plan: Plan) -> Iterator[ShardTables]:
    """Manifest and pseudo table of one shard after the other."""
    for shard in tracked(range(plan.num_shards), "export", unit="shard"):
        manifest, pseudo = (read_part(run.part(table, shard, plan.num_shards)) for table in ("manifest", "pseudo"))
        yield manifest, pseudo


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
