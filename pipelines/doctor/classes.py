"""`doctor`: how many boxes each class has, and which classes a segmenter knows."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pseudolabel.config import narrowed, parse_config
from pseudolabel.errors import ConfigError, PseudolabelError
from pseudolabel.pipelines.doctor.checks import Check, fail, ok, warn
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig, SemanticCandidatesConfig
from pseudolabel.pipelines.run.commit import DamagedPartError, read_footer
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.pipelines.stages.infer_semantic import segmenter_options
from pseudolabel.pipelines.stages.semantic_candidates import class_lists
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


@dataclass(frozen=True, slots=True)
class Segmenter:
    """What a segmenter knows, and what becomes of boxes that it does not know."""

    classes: tuple[str, ...]
    colors_unknown: bool
    name: str = _FIRST  # of its table
    model: str = "MODEL"


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


def asked_segmenter(config: InferSemanticConfig, found: BoxesOf | None = None, typed: str = "RUN") -> Iterator[Check]:
    """Whether a segmenter opens and works, and what it knows of the boxes, if there are any.

    Args:
        typed: the run folder as a shell takes it.
    """
    try:
        segmenter = open_segmenter(config.model, segmenter_options(config, "cpu"))
        segmenter.probe()
    except PseudolabelError as error:
        yield fail("segmenter", str(error), "infer-semantic ends in the same way: mend that first")
        return
    yield ok("segmenter", f"{config.model}: {len(segmenter.classes)} classes, works on the CPU")
    if found and found.boxes:
        colors = narrowed(config, SemanticCandidatesConfig).colors_unknown
        yield class_map(Segmenter(segmenter.classes, colors, config.name, config.model), found, typed)


def recorded_segmenters(run: RunPaths, found: BoxesOf) -> Iterator[Check]:
    """What the segmenters of a run know of its boxes: by the label maps, or the recorded model before there are any."""
    made = list(_of_label_maps(run))
    yield from (class_map(one, found, run.typed) for one in made)
    asked = [one.config for one in saved_configs(run)[0] if one.stage == "infer-semantic"]
    if asked and not made:
        try:
            config = parse_config(InferSemanticConfig, asked[0], where=str(run.config("infer-semantic")))
        except ConfigError as error:
            yield fail("segmenter", str(error), f"pseudolabel infer-semantic {run.typed} --model FILE.onnx")
            return
        yield from asked_segmenter(config, found, run.typed)


def class_map(segmenter: Segmenter, found: BoxesOf, typed: str) -> Check:
    """Which categories, and how many boxes, have a class of the segmenter, matched as `semantic-candidates` does it."""
    match = match_classes(segmenter.classes, found.names)
    unknown = {one for one, count in found.boxes.items() if count and one not in match.index_of}
    total = found.boxes.total()
    known = total - sum(found.boxes[one] for one in unknown)
    text = (
        f"{len(match.index_of)} of {len(found.names)} categories and {known} of {total} boxes have a class of the "
        f"segmenter, by {match.used}"
    )
    name = "class map" if segmenter.name == _FIRST else f"class map {segmenter.name}"
    if not unknown:
        return ok(name, text)
    text += f"; none for {found.named(unknown)}"
    if not known:
        todo = "it is of no use here: infer-colors needs no model, and train-teacher learns from boxes of any class"
        return warn(name, text, todo)
    if segmenter.colors_unknown:
        todo = f"these get masks from box and colours alone; to learn them too:  pseudolabel train-teacher {typed}"
        return warn(name, text, todo)
    if segmenter.name != _FIRST:
        return ok(name, f"{text}: left to the other sources")
    again = f"pseudolabel infer-semantic {typed} --model {shlex.quote(segmenter.model)} --unknown-classes colors"
    return warn(name, text, f"these get no candidates; to have them from box and colours:  {again}")


def _of_label_maps(run: RunPaths) -> Iterator[Segmenter]:
    """The segmenters whose label maps a run has, the first one first."""
    for folder in sorted(run.root.glob("semantic*")):
        parts = sorted(folder.glob("part-*.parquet"))
        name = folder.name.removeprefix("semantic-")
        try:
            for classes in class_lists(parts):
                model = read_footer(parts[0]).config["model"]
                yield Segmenter(classes, _colors_unknown(run, name), name, model)
        except DamagedPartError:
            continue  # the line of this table says so


def _colors_unknown(run: RunPaths, name: str) -> bool:
    """Whether boxes without a class get masks from colours: as their candidates say, else by default."""
    part = next(run.table(f"candidates/{name}").glob("part-*.parquet"), None)
    if part is None:
        return name == _FIRST
    return parse_config(SemanticCandidatesConfig, read_footer(part).config, where=str(part)).colors_unknown


def _listed(parts: list[str]) -> str:
    more = f", ... ({len(parts) - _NAMED} more)" if len(parts) > _NAMED else ""
    return ", ".join(parts[:_NAMED]) + more
