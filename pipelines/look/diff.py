"""`diff`: what changed between two runs over the same boxes, by annotation id."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import InputError, QualityGateError
from pseudolabel.pipelines.options.look import DiffConfig
from pseudolabel.pipelines.run.paths import RunPaths

if TYPE_CHECKING:
    from pseudolabel.pipelines.look.choice import Lowest
    from pseudolabel.pipelines.look.rows import FusedRun

Row = dict[str, Any]
_IOU_BINS = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """One object in both runs."""

    shard: int  # of the run
    now: Row
    before: Row
    iou: float  # of the two masks


@dataclass(slots=True)
class _Changes:
    """What is counted over pairs."""

    ious: list[float] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)  # before, now
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, pair: Pair) -> None:
        from pseudolabel.records import expected_iou

        self.ious.append(pair.iou)
        self.scores.append((expected_iou(pair.before), expected_iou(pair.now)))
        self.decisions[pair.before["decision"], pair.now["decision"]] += 1

    def figures(self) -> Row:
        """Plain values; see `diff_runs`."""
        import numpy as np

        from pseudolabel.metrics.drift import ks_distance, population_stability

        ious = np.array(self.ious)
        before, now = np.array(self.scores).T
        return {
            "n": len(ious),
            "mean_iou": float(ious.mean()),
            "iou_quantiles": dict(zip(("1%", "5%", "50%"), np.quantile(ious, (0.01, 0.05, 0.5)).tolist(), strict=True)),
            "same_masks": int((ious == 1).sum()),
            "changed_decisions": sum(n for (old, new), n in self.decisions.items() if old != new),
            "mean_score_before": float(before.mean()),
            "mean_score": float(now.mean()),
            "psi": population_stability(before, now),
            "ks": ks_distance(before, now),
        }


def diff_runs(run: RunPaths, config: DiffConfig) -> Row:
    """How the masks, decisions and scores of a run differ from those of another over the same annotations.

    Keys: `n, mean_iou, iou_quantiles, same_masks, changed_decisions, mean_score_before, mean_score, psi, ks`, the last
    two of the scores; `iou_histogram` in ten bins, `decisions` as before > now, `only_in_run, only_in_base, per_class,
    picture`.

    Raises:
        InputError: a run has no pseudo labels, or the two share no annotation.
    """
    from pseudolabel.pipelines.look.choice import Lowest
    from pseudolabel.pipelines.look.rows import FusedRun

    fused, base = FusedRun(run), FusedRun(RunPaths(config.base))
    everything, classes = _Changes(), defaultdict[str, _Changes](_Changes)
    worst, alone = Lowest(config.objects), Counter[str]()
    for order, pair in enumerate(_pairs(fused, base, alone)):
        everything.add(pair)
        classes[fused.names[pair.now["category_id"]]].add(pair)
        if pair.iou < 1 or pair.now["decision"] != pair.before["decision"]:
            worst.add(pair.iou, order, pair)
    if not everything.ious:
        raise InputError(
            f"{run.root} and {config.base} share no labelled annotation id: they must be made of the same boxes file"
        )
    figures = everything.figures() | _counts(everything)
    figures |= {"only_in_run": alone["run"], "only_in_base": alone["base"]}
    figures["per_class"] = {name: one.figures() for name, one in sorted(classes.items(), key=_by_number)}
    return figures | {"picture": _sheet(fused, worst, run.pictures("diff") / "objects.png")}


def check_gates(figures: Mapping[str, Any], config: DiffConfig) -> None:
    """Pass where the run changed no more than was asked for.

    Raises:
        QualityGateError: it did; every limit that does not hold is named.
    """
    broken = []
    if config.min_mean_iou is not None and figures["mean_iou"] < config.min_mean_iou:
        broken.append(f"mean IoU {figures['mean_iou']:.3f} is below --min-mean-iou {config.min_mean_iou:g}")
    if config.min_mean_score is not None and figures["mean_score"] < config.min_mean_score:
        broken.append(f"mean score {figures['mean_score']:.3f} is below --min-mean-score {config.min_mean_score:g}")
    if config.max_drift is not None and figures["psi"] > config.max_drift:
        broken.append(f"drift {figures['psi']:.3f} is above --max-drift {config.max_drift:g}")
    if broken:
        raise QualityGateError("; ".join(broken))


def _pairs(fused: "FusedRun", base: "FusedRun", alone: Counter[str]) -> Iterator[Pair]:
    """Every annotation that both runs labelled; those of one alone are counted."""
    from pseudolabel.metrics.mask_iou import rle_iou

    of_shard, seen = _base_rows(fused, base), 0
    for shard in fused.shards:
        others = of_shard(shard)
        for now in fused.objects(shard):
            before = others.get(now["annotation_id"])
            if now["annotation_id"] is None or before is None:
                alone["run"] += 1
                continue
            if before["segmentation"]["size"] != now["segmentation"]["size"]:
                raise InputError(f"annotation {now['annotation_id']}: its image has another size in {base.paths.root}")
            seen += 1
            yield Pair(shard, now, before, rle_iou(now["segmentation"], before["segmentation"]))
    alone["base"] = sum(1 for _ in base.all_objects()) - seen


def _base_rows(fused: "FusedRun", base: "FusedRun") -> Callable[[int], dict[int, Row]]:
    """The other run's rows by annotation id: those of the same shard where both have one plan, else all of them."""
    if fused.plan.digest == base.plan.digest:
        return lambda shard: {row["annotation_id"]: row for row in base.objects(shard)} if shard in base.shards else {}
    everything = {row["annotation_id"]: row for _, row in base.all_objects()}
    return lambda _: everything


def _counts(changes: _Changes) -> Row:
    import numpy as np

    bins = np.histogram(changes.ious, _IOU_BINS, (0, 1))[0].tolist()
    decisions = {f"{old} > {new}": n for (old, new), n in changes.decisions.most_common()}
    return {"iou_histogram": bins, "decisions": decisions}


def _by_number(one: tuple[str, _Changes]) -> tuple[int, str]:
    return (-len(one[1].ious), one[0])


def _sheet(fused: "FusedRun", worst: "Lowest", path: Path) -> str | None:
    """The masks that changed most, each with the earlier one outlined in white; None where nothing changed."""
    from pseudolabel.labels import drawn_label
    from pseudolabel.pipelines.look.picture import save_picture
    from pseudolabel.report.overlay import DrawnObject, contact_sheet, object_picture, sheet_layout

    pairs: list[Pair] = worst.ranked()
    if not pairs:
        return None
    columns, side_px = sheet_layout(len(pairs))
    cells = []
    for pair in pairs:
        box = drawn_label(pair.now, "").box_xyxy
        drawn = DrawnObject(pair.now["segmentation"], _label(fused, pair), box, pair.before["segmentation"])
        pixels = fused.pixels(fused.file_names(pair.shard)[pair.now["image_key"]])
        cells.append(object_picture(pixels, drawn, side_px=side_px))
    return str(save_picture(path, contact_sheet(cells, columns=columns)))


def _label(fused: "FusedRun", pair: Pair) -> str:
    old, new = pair.before["decision"], pair.now["decision"]
    return f"{fused.names[pair.now['category_id']]} {pair.iou:.2f}" + ("" if old == new else f" {old} > {new}")


# --- for people ------------------------------------------------------------------------------------------------------


def format_diff(figures: Mapping[str, Any]) -> str:
    """The figures for people: all, the decisions that changed, and every class."""
    quantiles = ", ".join(f"{name} {value:.3f}" for name, value in figures["iou_quantiles"].items())
    lines = [
        f"{figures['n']} objects in both, {figures['only_in_run']} in the run alone, "
        f"{figures['only_in_base']} in the base alone",
        f"masks: mean IoU {figures['mean_iou']:.3f} ({quantiles}), {figures['same_masks']} the same",
        f"scores: mean {figures['mean_score_before']:.3f} -> {figures['mean_score']:.3f}, "
        f"drift (PSI) {figures['psi']:.3f}, KS {figures['ks']:.3f}",
        f"decisions: {figures['changed_decisions']} changed",
        *(f"  {count:>7} {change}" for change, count in figures["decisions"].items() if _is_change(change)),
        f"{'class':<24}{'objects':>9}{'mean IoU':>10}{'changed':>9}{'score before':>14}{'now':>8}{'PSI':>8}",
    ]
    lines += [_class_line(name, one) for name, one in figures["per_class"].items()]
    return "\n".join([*lines, f"the masks that changed most: {figures['picture']}"] if figures["picture"] else lines)


def _is_change(change: str) -> bool:
    old, _, new = change.partition(" > ")
    return old != new


def _class_line(name: str, one: Mapping[str, Any]) -> str:
    return (
        f"{name:<24}{one['n']:>9}{one['mean_iou']:>10.3f}{one['changed_decisions']:>9}"
        f"{one['mean_score_before']:>14.3f}{one['mean_score']:>8.3f}{one['psi']:>8.3f}"
    )
