"""The table `reviewed`: what people answered, by shard, as `fuse` reads it.

It is made of the files below reviews/ whenever `fuse` begins. A part's fingerprint is a hash of its rows, so that an
answer makes `fuse` go again over the shard of its image and over no other.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import ManifestImage, usable_images
from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.brought import brought_footer, footer_there
from pseudolabel.pipelines.run.commit import DamagedPartError, commit_table, read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.reviews import Answer, mask_digest, read_answers, settled, told_torn

TABLE = "reviewed"
STAGE = "review"
VERSION = 1
_HOW_LONG = ("seconds", "at")  # how long an answer took changes no mask
Row = dict[str, Any]
_LOG = logging.getLogger(__name__)


def answers_of(run: RunPaths) -> list[Answer]:
    """Every line of every reviewer, in the order of their files; a cut off last line is said on the log.

    Raises:
        InputError: a file below reviews/ is no review.
    """
    answers: list[Answer] = []
    for path in sorted(run.reviews.glob("*.jsonl")):
        found = read_answers(path)
        if found.torn_bytes:
            _LOG.warning(told_torn(path, found.torn_bytes))
        answers += found.answers
    return answers


def has_reviews(run: RunPaths) -> bool:
    """Whether anybody has answered anything, or had."""
    return run.table(TABLE).is_dir() or any(run.reviews.glob("*.jsonl"))


def bring_in_reviews(run: RunPaths) -> int:
    """Write the parts of `reviewed` whose answers are new; how many there were.

    Raises:
        InputError: a file of answers is damaged, or a mask in it is.
        FileNotFoundError, DamagedPartError: the manifest is not complete; who reads it next says so.
    """
    if not has_reviews(run):
        return 0
    plan = read_plan(run)
    answers = _counting(run)
    written = sum(_write(run, plan, shard, answers) for shard in range(plan.num_shards))
    if answers:
        _LOG.warning(f"{len(answers)} answers are of no object of this run, such as {_named(min(answers.items())[1])}")
    return written


def waiting_answers(run: RunPaths) -> Counter[int]:
    """By shard, the objects of which the next `fuse` would say something else, as people answered or took it back."""
    if not has_reviews(run):
        return Counter()
    plan, given = read_plan(run), {number: _said(one) for number, one in _counting(run).items()}
    taken = {number: (said, shard) for shard in range(plan.num_shards) for number, said in _taken(run, plan, shard)}
    back = Counter(shard for number, (_, shard) in taken.items() if number not in given)
    new = {number for number, said in given.items() if taken.get(number, (None, 0))[0] != said}
    return back + Counter(shard for number, shard in _shards_of(run, plan, new))


def _counting(run: RunPaths) -> dict[int, Answer]:
    return {number: one for number, one in settled(answers_of(run)).items() if one.verdict != "skip"}


def _said(answer: Answer) -> tuple[Any, ...]:
    """What of an answer decides a mask."""
    return (answer.verdict, answer.category_id, answer.mask and mask_digest(answer.mask))


def _taken(run: RunPaths, plan: Plan, shard: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The answers that the pseudo labels of a shard were made with."""
    path = run.part(TABLE, shard, plan.num_shards)
    fused, table = footer_there(run.part("pseudo", shard, plan.num_shards)), footer_there(path)
    if fused is None or table is None or fused.inputs.get(TABLE) != table.identity:
        return
    for row in read_part(path).to_pylist():
        if row["status"] == "ok":
            mask = row["segmentation"]
            yield row["annotation_id"], (row["verdict"], row["category_id"], mask and mask_digest(mask))


def _shards_of(run: RunPaths, plan: Plan, ids: set[int]) -> Iterator[tuple[int, int]]:
    """Those of the annotations that are objects of the run, each with its shard."""
    for shard in range(plan.num_shards) if ids else ():
        path = run.part("manifest", shard, plan.num_shards)
        images = usable_images(read_part(path)) if path.exists() else ()
        yield from ((box.annotation_id, shard) for image in images for box in image.objects if box.annotation_id in ids)


def _write(run: RunPaths, plan: Plan, shard: int, answers: dict[int, Answer]) -> bool:
    """Whether the part had to be written; answers that belong to it are taken out of `answers`."""
    path, manifest_path = (run.part(table, shard, plan.num_shards) for table in (TABLE, "manifest"))
    try:
        manifest, manifest_footer = read_part(manifest_path), read_footer(manifest_path)
    except (FileNotFoundError, DamagedPartError):
        return False  # the stage names it when it asks for its inputs
    part = _part(answers, usable_images(manifest))
    footer = brought_footer(part, manifest, manifest_footer, stage=STAGE, version=VERSION, unhashed=_HOW_LONG)
    there = footer_there(path)
    if there is not None and there.fingerprint == footer.fingerprint:
        return False
    commit_table(part, path, footer)
    return True


def _part(answers: dict[int, Answer], images: list[ManifestImage]) -> pa.Table:
    """A row for each answer about an object of the shard, an `empty` one for each image without any."""
    rows: list[Row] = []
    for image in images:
        ids = [box.annotation_id for box in image.objects if box.annotation_id is not None]
        of_image = [answers.pop(one) for one in ids if one in answers and answers[one].image_key == image.key]
        rows += [_row(one, image) for one in sorted(of_image, key=lambda one: one.annotation_id)]
        rows += [] if of_image else [{"image_key": image.key, **records.empty(STAGE)}]
    return records.table_from_rows(rows, records.REVIEWED)


def _named(answer: Answer) -> str:
    return f"{answer.reviewer}'s on {answer.image_key} id {answer.annotation_id}"


def _row(answer: Answer, image: ManifestImage) -> Row:
    from pseudolabel.rle import check_rle  # numba, which a stage's import does without

    try:
        mask = None if answer.mask is None else check_rle(answer.mask, image.size_hw)
    except RejectError as error:
        raise InputError(
            f"reviews/{answer.reviewer}.jsonl, answer on {image.file_name} id {answer.annotation_id}: {error.detail}"
        ) from None
    return {
        "image_key": image.key,
        "annotation_id": answer.annotation_id,
        "verdict": answer.verdict,
        "category_id": answer.category_id,
        "segmentation": mask,
        "origin": answer.origin,
        "seen": answer.seen,
        "seconds": answer.seconds,
        "reviewer": answer.reviewer,
        "at": answer.at,
        **records.ok(STAGE),
    }
