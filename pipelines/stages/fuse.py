"""`fuse`: from the candidates of all sources to one mask, one score and one decision per object."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import Candidate, GivenBox, ManifestImage, candidates_by_image, usable_images
from pseudolabel.config import result_relevant
from pseudolabel.errors import InputError, RejectError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.made_categories import coco_header
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.last_word import with_answers
from pseudolabel.pipelines.review.reviewed import TABLE as REVIEWED
from pseudolabel.pipelines.review.reviewed import bring_in_reviews, waiting_answers
from pseudolabel.pipelines.run.commit import footer_of, read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths, parse_part_name
from pseudolabel.pipelines.stage import Shard, Stage
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work.tally import counted

if TYPE_CHECKING:
    from pseudolabel.fusion.labels import LabelSettings
    from pseudolabel.fusion.score_model import ScoreModel

Row = dict[str, Any]


class FuseStage(Stage[FuseConfig]):
    """Reads the manifest and every candidate table, writes `pseudo`."""

    name = "fuse"
    version = 21
    config_class = FuseConfig
    unit = "object"
    schema = records.PSEUDO
    writes = "pseudo"
    exports = ("instances.json", "results.json", "provenance.json")
    made_again = True

    def __init__(self, config: FuseConfig, run: RunPaths) -> None:
        super().__init__(config, run)
        self._calibration: ScoreModel | None = None
        self._has_boxes = True

    def prepare(self) -> None:
        """What people answered since the last time becomes a table."""
        bring_in_reviews(self.run_paths)

    def waiting(self) -> Mapping[int, int]:
        return waiting_answers(self.run_paths)

    def reads(self) -> tuple[str, ...]:
        """The manifest, the candidate tables, and what people answered.

        Raises:
            InputError: a table that was asked for is not there, or there is none at all.
        """
        there = self.run_paths.candidate_tables()
        wanted = tuple(f"candidates/{name}" for name in sorted(self.config.sources)) or there
        missing = sorted(set(wanted) - set(there))
        if missing or not wanted:
            have, typed = ", ".join(there) or "none", self.run_paths.typed
            with_boxes = f"pseudolabel infer-colors {typed},  or infer-semantic, infer-teacher, infer-prompted"
            bare = f"pseudolabel train-siseg {typed}  and  pseudolabel infer-siseg {typed}:  the run has no boxes"
            raise InputError(
                f"{self.run_paths.root}: no table {', '.join(missing) or 'of candidates'} (there: {have}); "
                f"make one with  {with_boxes if read_plan(self.run_paths).n_objects else bare}"
            )
        answers = (REVIEWED,) if self.run_paths.table(REVIEWED).is_dir() else ()
        return ("manifest", *wanted, *answers)

    def weights(self) -> Mapping[str, Path]:
        return {} if self.config.calibration is None else {"calibration": self.config.calibration}

    def setup(self, device: str) -> None:
        """What the options name; the work itself runs on the CPU, on whichever device the networks ran."""
        from pseudolabel.fusion.score_model import load_score_model

        self._has_boxes = read_plan(self.run_paths).n_objects > 0
        if self.config.calibration is not None:
            self._calibration = load_score_model(self.config.calibration)
        self._settings()  # limits that no score reaches end the stage here

    def _settings(self, learned_from: Mapping[str, int] | None = None) -> "LabelSettings":
        from pseudolabel.fusion.settings import label_settings

        return label_settings(
            self.config, has_boxes=self._has_boxes, learned_from=learned_from, calibration=self._calibration
        )

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        tables = {name: table for name, table in sorted(inputs.items()) if name.startswith("candidates/")}
        candidates = candidates_by_image(list(tables.values()))
        heard = _heard_tables(tables) if self.config.share_guides else {}
        settings = self._settings(_heard_sources(tables, heard))
        rows: list[Row] = []
        for image in counted(usable_images(inputs["manifest"])):
            rows += self._rows(image, candidates.get(image.key, []), shard, settings)
        rows = with_answers(rows, inputs)
        return records.with_notes(
            records.table_from_rows(rows, records.PSEUDO), _decided(rows) + self._expected(rows, settings)
        )

    def finish(self, paths: list[Path]) -> dict[str, dict[str, int]]:
        """`instances.json`, `results.json` and `provenance.json` beside the parts."""
        from pseudolabel.formats.coco import write_coco

        header = coco_header(self.run_paths, paths)
        folder = self.run_paths.table(self.writes)
        written = write_coco(self._shards(paths), header, folder / "instances.json", folder / "results.json")
        text = json.dumps(self._provenance(paths), sort_keys=True, indent=1)
        write_text_atomically(folder / "provenance.json", text + "\n")
        masks = {"annotations": written.annotations}
        return {"instances.json": masks | {"images": written.images}, "results.json": masks}

    def _rows(self, image: ManifestImage, found: list[Candidate], shard: Shard, settings: "LabelSettings") -> list[Row]:
        """The rows of one image: one per object, or one `empty` row."""
        from pseudolabel.fusion.image_rows import image_rows

        key = {"image_key": image.key}
        try:
            rgb = planned_pixels(image, shard) if found and self._looks(settings) else None
        except RejectError as error:
            status = records.rejected(self.name, error.reason, error.detail)
            return [key | _given(box) | status for box in image.boxes] or [key | status]
        boxes = image.boxes if self._has_boxes else None
        rows = image_rows(boxes, found, image.size_hw, settings, calibration=self._calibration, rgb=rgb)
        return [row | key | records.ok(self.name) for row in rows] or [key | records.empty(self.name)]

    def _expected(self, rows: Sequence[Row], settings: "LabelSettings") -> Counter[str]:
        """How many of the kept masks are expected to be good, in thousandths, so that rounding does not add up over
        shards; nothing where no score says that.
        """
        from pseudolabel.fusion.score_model import default_score_model

        model = self._calibration or (default_score_model() if settings.score_of_mask == "evidence" else None)
        kept = [row for row in rows if row["status"] == "ok" and row["decision"] == "keep"]
        if model is None or not kept:
            return Counter()
        scores = [row["score"] if row["calibrated_iou"] is None else row["calibrated_iou"] for row in kept]
        return Counter(good_thousandths=round(1000 * float(model.chances.of(scores, self.config.at_iou).sum())))

    def _looks(self, settings: "LabelSettings") -> bool:
        """Whether masks or their scores depend on the pictures."""
        return self.config.refine == "color" or settings.score_of_mask == "evidence"

    def _shards(self, paths: list[Path]) -> Iterator[tuple[pa.Table, pa.Table]]:
        for path in paths:
            place = parse_part_name(path.name)
            if place is None:
                raise InputError(f"{path}: not the name of a part")
            yield read_part(self.run_paths.part("manifest", *place)), read_part(path)

    def _provenance(self, paths: list[Path]) -> Row:
        """What each `provenance_id` of the masks stands for: the rules, and the sources with their weights."""
        seen: dict[str, list[str]] = {}
        for path in paths:
            for row in read_part(path, columns=["provenance_id", "sources"]).to_pylist():
                if row["provenance_id"] is not None:
                    seen[row["provenance_id"]] = row["sources"]
        return {
            "rules": {"stage": self.name, "version": self.version, "config": result_relevant(self.config)},
            "tables": {table: _origin(self.run_paths, table, paths) for table in self.reads()},
            "masks": {key: {"sources": sources} for key, sources in sorted(seen.items())},
        }


def _heard_tables(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """From which of the tables another one has learned, and in how many rounds at most."""
    most: dict[str, int] = {}
    for footer in filter(None, map(footer_of, tables.values())):
        for name, rounds in footer.learned_from.items():
            most[f"candidates/{name}"] = max(rounds, most.get(f"candidates/{name}", 0))
    return {name: rounds for name, rounds in most.items() if name in tables}


def _heard_sources(tables: Mapping[str, pa.Table], heard: Mapping[str, int]) -> dict[str, int]:
    """The same by what the rows call their source, which need not be the table's name."""
    most: dict[str, int] = {}
    for name, rounds in heard.items():
        for source in tables[name]["source"].unique().drop_null().to_pylist():
            most[source] = max(rounds, most.get(source, 0))
    return most


def _given(box: GivenBox) -> Row:
    """What a row says of a box whose image failed."""
    return {
        "annotation_id": box.annotation_id,
        "category_id": box.category_id,
        "source_bbox_xywh": list(box.bbox_xywh),
        "iscrowd": box.is_crowd,
    }


def _decided(rows: Sequence[Row]) -> Counter[str]:
    """Masks by what was decided of them, how many there are, and how many had nothing to be made from."""
    masks = [row for row in rows if row["status"] == "ok"]
    decided = Counter(row["decision"] for row in masks)
    without = sum(row["decision_reason"] == "no_candidate" for row in masks)
    reviewed = sum(row["decision_reason"] == REVIEWED for row in masks)
    return decided + Counter(masks=len(masks), without_candidate=without, reviewed=reviewed)


def _origin(run: RunPaths, table: str, paths: list[Path]) -> Row:
    """Which stage wrote a table, with which weights and options; the parts of one run agree on it."""
    place = parse_part_name(paths[0].name)
    if place is None:
        raise InputError(f"{paths[0]}: not the name of a part")
    footer = read_footer(run.part(table, *place))
    return {
        "stage": footer.stage,
        "version": footer.stage_version,
        "weights": footer.weights,
        "config": footer.config,
        "learned_from": footer.learned_from,
    }
