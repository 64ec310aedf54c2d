"""`fuse`: from the candidates of all sources to one mask, one score and one decision per object."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.config import result_relevant
from pseudolabel.errors import InputError, RejectError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.options.fuse import FuseConfig
from pseudolabel.pipelines.run.commit import footer_of, read_footer, read_part
from pseudolabel.pipelines.run.made_categories import made_categories
from pseudolabel.pipelines.run.paths import RunPaths, parse_part_name
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.stage import Shard, Stage
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work.tally import counted

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy import ndarray

    from pseudolabel.fusion.calibration import Calibration
    from pseudolabel.fusion.candidates import Candidate, Target
    from pseudolabel.fusion.decisions import Limits
    from pseudolabel.fusion.labels import LabelSettings, ScoreOfMask

Row = dict[str, Any]
LIMITS = {"expected": (0.8, 0.65), "consensus": (0.85, 0.6)}  # keep and review
OTHER_LIMITS = (0.5, 0.3)  # of calibrated scores and the papers'


class FuseStage(Stage[FuseConfig]):
    """Reads the manifest and every candidate table, writes `pseudo`."""

    name = "fuse"
    version = 12
    config_class = FuseConfig
    unit = "object"
    schema = records.PSEUDO
    writes = "pseudo"
    exports = ("instances.json", "results.json", "provenance.json")

    def __init__(self, config: FuseConfig, run: RunPaths) -> None:
        super().__init__(config, run)
        self._calibration: Calibration | None = None
        self._has_boxes = True

    def reads(self) -> tuple[str, ...]:
        """The manifest and the candidate tables.

        Raises:
            InputError: a table that was asked for is not there, or there is none at all.
        """
        there = self.run_paths.candidate_tables()
        wanted = tuple(f"candidates/{name}" for name in sorted(self.config.sources)) or there
        missing = sorted(set(wanted) - set(there))
        if missing or not wanted:
            have = ", ".join(there) or "none"
            raise InputError(
                f"{self.run_paths.root}: no table {', '.join(missing) or 'of candidates'} (there: {have}); "
                "make one with  pseudolabel infer-semantic,  infer-colors,  infer-siseg  or  infer-teacher"
            )
        return ("manifest", *wanted)

    def weights(self) -> Mapping[str, Path]:
        return {} if self.config.calibration is None else {"calibration": self.config.calibration}

    def setup(self, device: str) -> None:
        """What the options name; the work itself runs on the CPU, on whichever device the networks ran."""
        from pseudolabel.fusion.calibration import load_calibration

        self._has_boxes = read_plan(self.run_paths).n_objects > 0
        if self.config.calibration is not None:
            self._calibration = load_calibration(self.config.calibration)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        from pseudolabel.fusion.candidates import rows_by_image

        candidates = rows_by_image([table for name, table in sorted(inputs.items()) if name.startswith("candidates/")])
        heard = _heard_tables(inputs) if self.config.share_guides else {}
        settings = label_settings(
            self.config,
            has_boxes=self._has_boxes,
            heard=_heard_sources(inputs, heard),
            weights=[_share(heard.get(name, 0)) for name in inputs if name.startswith("candidates/")],
        )
        rows: list[Row] = []
        for image in counted(sorted(inputs["manifest"].to_pylist(), key=lambda row: str(row["image_key"]))):
            if image["status"] != "rejected" and image["annotation_id"] is None:
                rows += self._label_image(image, candidates.get(image["image_key"], []), shard, settings)
        return records.with_notes(records.table_from_rows(rows, records.PSEUDO), _decided(rows))

    def finish(self, paths: list[Path]) -> dict[str, dict[str, int]]:
        """`instances.json`, `results.json` and `provenance.json` beside the parts."""
        from pseudolabel.formats.coco import write_coco

        plan = read_plan(self.run_paths)
        made = {} if plan.n_objects else {"pseudolabel": {"annotation_ids": "made"}}  # no ids were given
        categories = plan.categories or made_categories(self.run_paths, paths)
        header = {"info": plan.info | made, "licenses": plan.licenses, "categories": categories}
        folder = self.run_paths.table(self.writes)
        written = write_coco(self._shards(paths), header, folder / "instances.json", folder / "results.json")
        text = json.dumps(self._provenance(paths), sort_keys=True, indent=1)
        write_text_atomically(folder / "provenance.json", text + "\n")
        masks = {"annotations": written.annotations}
        return {"instances.json": masks | {"images": written.images}, "results.json": masks}

    def _label_image(self, image: Row, candidates: Sequence[Row], shard: Shard, settings: "LabelSettings") -> list[Row]:
        """The rows of one image: one per object, or one `empty` row."""
        from pseudolabel.fusion.candidates import candidate_from_row
        from pseudolabel.fusion.groups import label_groups

        found = [candidate_from_row(row) for row in candidates]
        size_hw = (image["height"], image["width"])
        try:
            rgb = self._pixels(image, found, shard)
        except RejectError as error:
            status = records.rejected(self.name, error.reason, error.detail)
            objects: Sequence[Row] = image["objects"] or ({},)
            return [_reject_row(image, one) | status for one in objects]
        if self._has_boxes:
            rows = self._label_objects(image, found, rgb, settings)
        else:
            rows = label_groups(found, size_hw, settings, self._calibration, rgb)
        if not rows:
            return [{"image_key": image["image_key"], **records.empty(self.name)}]
        return [row | {"image_key": image["image_key"], **records.ok(self.name)} for row in rows]

    def _label_objects(
        self, image: Row, found: list["Candidate"], rgb: 'UInt8[ndarray, "H W 3"] | None', settings: "LabelSettings"
    ) -> list[Row]:
        from pseudolabel.fusion.labels import crowd_row, label_objects

        objects, size_hw = image["objects"] or [], (image["height"], image["width"])
        targets = [_target(one) for one in objects if not one["iscrowd"]]
        labels = label_objects(targets, found, size_hw, settings, self._calibration, rgb)
        crowds = [crowd_row(_target(one), _crowd_mask(one, size_hw), size_hw) for one in objects if one["iscrowd"]]
        return sorted(labels + crowds, key=lambda row: int(row["annotation_id"]))

    def _pixels(self, image: Row, found: Sequence["Candidate"], shard: Shard) -> 'UInt8[ndarray, "H W 3"] | None':
        """The photograph, where the refinement looks at it and there is something to refine."""
        return planned_pixels(image, shard) if found and self.config.refine == "color" else None

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


def label_settings(
    config: FuseConfig,
    *,
    has_boxes: bool,
    heard: Mapping[str, int] | None = None,
    weights: Sequence[float] = (1.0,),
) -> "LabelSettings":
    """What the options mean; where boxes are given, a score need not say whether there is an object.

    Args:
        heard: sources that weigh less because another one has learned from them, and in how many rounds.
        weights: of the tables beside each other.
    """
    from pseudolabel.fusion.labels import LabelSettings, ScoreOfMask
    from pseudolabel.fusion.objects import FusionSettings
    from pseudolabel.fusion.quality_aware import FusionRule, Score
    from pseudolabel.fusion.refine import Refinement

    tau_box = config.tau_box if config.tau is None else config.tau
    of_objects: ScoreOfMask = "consensus" if len(weights) > 1 else "expected"
    named = config.score if config.score != "auto" else of_objects if has_boxes else "mqs"
    class_margin = config.class_margin if config.exclusive == "class" and config.class_margin < 1 else None
    of_mask: ScoreOfMask | None = None
    of_candidates: Score = "mqs"
    if named == "consensus" or named == "expected":
        of_mask = named
    else:
        of_candidates = named
    return LabelSettings(
        fusion=FusionSettings(
            rule=FusionRule(config.fusion, of_candidates, tau_box, _tau_pixel(config, weights)),
            ranking=config.ranking,
            candidates=None if config.candidates == "adaptive" else int(config.candidates),
            min_iou=config.min_iou,
            scale=config.scale,
            balance=config.balance,
            source_weights=_shared_weights(heard or {}),
            witnesses=of_mask == "consensus",
            class_evidence=class_margin is not None,
        ),
        limits=_limits(config, None if config.calibration else of_mask),
        refinement=Refinement(config.refine),
        smallest_part=config.smallest_part,
        largest_pinhole=config.largest_pinhole,
        exclusive=config.exclusive,
        upright=config.upright,
        class_margin=class_margin,
        score_of_mask=of_mask,
        unsure_band=config.unsure_band,
    )


def _tau_pixel(config: FuseConfig, weights: Sequence[float]) -> float:
    """What is given, or what the weighted mean of sources needs; one mask alone and a vote are read at one half."""
    from pseudolabel.fusion.quality_aware import threshold_of

    given = config.tau if config.tau is not None else config.tau_pixel
    if given is not None:
        return given
    return threshold_of(weights) if (config.fusion, config.ranking) == ("qmf", "bqr") else 0.5


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


def _shared_weights(heard: Mapping[str, int]) -> tuple[tuple[str, float], ...]:
    """What a source says in a teacher's masks need not be said again beside them: 1/n after n rounds."""
    return tuple((name, _share(rounds)) for name, rounds in sorted(heard.items()))


def _share(rounds: int) -> float:
    return 1 / max(rounds, 1)


def _limits(config: FuseConfig, score: "ScoreOfMask | None") -> "Limits":
    """The limits that are given, or those of the score's scale: our own are high for nearly all masks, so that the
    limits of the others would never speak. `calibrate` gives limits that mean a precision.
    """
    from pseudolabel.fusion.decisions import Limits

    keep, review = LIMITS[score] if score else OTHER_LIMITS
    given = config.keep_score, config.review_score
    return Limits(keep if given[0] is None else given[0], review if given[1] is None else given[1], config.min_area_px)


def _target(one: Row) -> "Target":
    from pseudolabel.fusion.candidates import Target

    return Target(one["annotation_id"], one["category_id"], tuple(one["bbox_xywh"]))


def _crowd_mask(one: Row, size_hw: tuple[int, int]) -> Any:
    """A crowd's region as the user drew it, None where only its box is there; never asked for an ordinary object."""
    from pseudolabel.rle import from_segmentation

    return from_segmentation(json.loads(one["segmentation"]), size_hw) if one["segmentation"] else None


def _reject_row(image: Row, one: Row) -> Row:
    """What is known of an object that could not be labelled; without one, of the image."""
    return {
        "image_key": image["image_key"],
        "annotation_id": one.get("annotation_id"),
        "category_id": one.get("category_id"),
        "source_bbox_xywh": one.get("bbox_xywh"),
        "iscrowd": one.get("iscrowd"),
    }


def _decided(rows: Sequence[Row]) -> Counter[str]:
    """Masks by what was decided of them, how many there are, and how many had nothing to be made from."""
    masks = [row for row in rows if row["status"] == "ok"]
    decided = Counter(row["decision"] for row in masks)
    without = sum(row["decision_reason"] == "no_candidate" for row in masks)
    return decided + Counter(masks=len(masks), without_candidate=without)


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
