"""`doctor`: how many boxes each class has, and which classes a segmenter knows."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pseudolabel.config import narrowed, parse_config
from pseudolabel.errors import ConfigError, PseudolabelError
from pseudolabel.pipelines.doctor.checks import Check, fail, ok, warn
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig, SemanticCandidatesConfig
from pseudolabel.pipelines.run.commit import DamagedPartError, read_footer
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.pipelines.stages.infer_semantic import segmenter_options
from pseudolabel.pipelines.stages.semantic_candidates import class_lists, label_map_table
from pseudolabel.segmenters.base import open_segmenter
from pseudolabel.segmenters.class_map import match_classes

_FEW_OBJECTS = 10  # of a class
_NAMED = 5  # classes that a line names
_FIRST = "semantic"


@dataclass(frozen=True, slots=True)
class BoxesOf:
    """How many boxes each category has; crowds are none of them."""

    names: Mapping[int, str]
    boxes: Counter[int]

    def named(self, ids: set[int]) -> str:
        """These categories with their numbers of boxes, the most frequent first, the first few of them."""
        return _listed([f"{self.names.get(one, one)} {count}" for one, count in self.boxes.most_common() if one in ids])


def class_sizes(found: BoxesOf) -> Check:
    """How many boxes the classes have."""
    seen = {one for one, count in found.boxes.items() if count}
    text = f"{len(seen)} with boxes, {len(set(found.names) - seen)} without: {found.named(seen)}"
    rare = sorted((count, str(found.names.get(one, one))) for one, count in found.boxes.items() if count < _FEW_OBJECTS)
    if not rare:
        return ok("classes", text)
    todo = "too few to learn from, so give more of them or leave them out: "
    named = _listed([f"{name} {count}" for count, name in rare])
    return warn("classes", f"{text}; {len(rare)} with fewer than {_FEW_OBJECTS}", todo + named)


def asked_segmenter(
    config: InferSemanticConfig, found: BoxesOf | None = None, run: RunPaths | None = None
) -> Iterator[Check]:
    """Whether a segmenter opens and works, and what it knows of the boxes, if there are any."""
    try:
        segmenter = open_segmenter(config.model, segmenter_options(config, "cpu"))
        segmenter.probe()
    except PseudolabelError as error:
        yield fail("segmenter", str(error), "infer-semantic ends in the same way: mend that first")
        return
    yield ok("segmenter", f"{config.model}: {len(segmenter.classes)} classes, works on the CPU")
    if found and found.boxes:
        yield class_map(segmenter.classes, narrowed(config, SemanticCandidatesConfig), found, run)


def recorded_segmenters(run: RunPaths, found: BoxesOf) -> Iterator[Check]:
    """What the segmenters of a run know of its boxes: by the label maps, or the recorded model before there are any."""
    made = list(_of_label_maps(run))
    yield from (class_map(classes, config, found, run) for classes, config in made)
    asked = [one.config for one in saved_configs(run)[0] if one.stage == "infer-semantic"]
    if asked and not made:
        try:
            config = parse_config(InferSemanticConfig, asked[0], where=f"{run.root}, infer-semantic")
        except ConfigError as error:
            yield fail("segmenter", str(error), f"pseudolabel infer-semantic {run.typed} --model FILE.onnx")
            return
        yield from asked_segmenter(config, found, run)


def class_map(
    classes: tuple[str, ...], config: SemanticCandidatesConfig, found: BoxesOf, run: RunPaths | None = None
) -> Check:
    """Which categories, and how many boxes, have a class of the segmenter, matched as `semantic-candidates` does it.

    Args:
        classes: of the segmenter.
        config: what `semantic-candidates` does with boxes that have none of them.
        run: where they are, if there is a run.
    """
    match = match_classes(classes, found.names)
    unknown = {one for one, count in found.boxes.items() if count and one not in match.index_of}
    total = found.boxes.total()
    known = total - sum(found.boxes[one] for one in unknown)
    text = (
        f"{len(match.index_of)} of {len(found.names)} categories and {known} of {total} boxes have a class of the "
        f"segmenter, by {match.used}"
    )
    name = "class map" if config.name == _FIRST else f"class map {config.name}"
    if not unknown:
        return ok(name, text)
    text += f"; none for {found.named(unknown)}"
    others = _of_any_class(run) if run else []
    if others or (config.name != _FIRST and not config.colors_unknown):
        return ok(name, f"{text}: left to {', '.join(others) or 'other sources'}")
    typed = run.typed if run else "RUN"
    return warn(name, text, _instead(config, typed) if known else _without_segmenter(typed))


def _instead(config: SemanticCandidatesConfig, typed: str) -> str:
    """What boxes without a class get, and what to type for more."""
    if config.colors_unknown:
        return f"these get masks from box and colours alone; to learn them too:  pseudolabel train-teacher {typed}"
    if config.masks == "region":
        return f"these get no candidates (--masks region); from box and colours:  pseudolabel infer-colors {typed}"
    again = f"pseudolabel semantic-candidates {typed} --unknown-classes colors --overwrite"
    return f"these get no candidates (--unknown-classes none); to have some from box and colours:  {again}"


def _without_segmenter(typed: str) -> str:
    colors, teacher = f"pseudolabel infer-colors {typed}", f"pseudolabel train-teacher {typed}"
    return f"it is of no use here; box and colours alone need no model:  {colors}; boxes to learn from:  {teacher}"


def _of_any_class(run: RunPaths) -> list[str]:
    """The sources of a run that need no class of a segmenter."""
    names = [table.removeprefix("candidates/") for table in run.candidate_tables()]
    return [name for name in names if name != "siseg" and not run.table(label_map_table(name)).is_dir()]


def _of_label_maps(run: RunPaths) -> Iterator[tuple[tuple[str, ...], SemanticCandidatesConfig]]:
    """The classes of each table of label maps, the first segmenter's first, and the config of its candidates."""
    for folder in sorted(run.root.glob("semantic*")):
        try:
            for classes in class_lists(sorted(folder.glob("part-*.parquet"))):
                yield classes, _candidates_config(run, folder.name.removeprefix("semantic-"))
        except DamagedPartError:
            continue  # the line of this table says so


def _candidates_config(run: RunPaths, name: str) -> SemanticCandidatesConfig:
    """The config that the candidates of a segmenter were made with, or before there are any, would be."""
    part = next(run.table(f"candidates/{name}").glob("part-*.parquet"), None)
    if part is None:
        usual: Literal["colors", "none"] = "colors" if name == _FIRST else "none"
        return SemanticCandidatesConfig(name=name, unknown_classes=usual)
    return parse_config(SemanticCandidatesConfig, {**read_footer(part).config, "name": name}, where=str(part))


def _listed(parts: list[str]) -> str:
    more = f", ... ({len(parts) - _NAMED} more)" if len(parts) > _NAMED else ""
    return ", ".join(parts[:_NAMED]) + more
