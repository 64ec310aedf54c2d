"""The table `reviewed`: what people answered, by shard, as `fuse` reads it.

It is made of the files below reviews/ whenever `fuse` begins. A part's fingerprint is a hash of its rows, so that an
answer makes `fuse` go again over the shard of its image and over no other.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import ManifestImage, usable_images
from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, commit_table, read_footer, read_part
from pseudolabel.pipelines.run.conservation import count_shard
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.reviews import Answer, read_answers, settled, told_torn

TABLE = "reviewed"
STAGE = "review"
VERSION = 1
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
    answers = {number: one for number, one in settled(answers_of(run)).items() if one.verdict != "skip"}
    written = sum(_write(run, plan, shard, answers) for shard in range(plan.num_shards))
    if answers:
        _LOG.warning(f"{len(answers)} answers are of no object of this run, such as {_named(min(answers.items())[1])}")
    return written


def _write(run: RunPaths, plan: Plan, shard: int, answers: dict[int, Answer]) -> bool:
    """Whether the part had to be written; answers that belong to it are taken out of `answers`."""
    path, manifest_path = (run.part(table, shard, plan.num_shards) for table in (TABLE, "manifest"))
    try:
        manifest, manifest_footer = read_part(manifest_path), read_footer(manifest_path)
    except (FileNotFoundError, DamagedPartError):
        return False  # the stage names it when it asks for its inputs
    part = _part(answers, usable_images(manifest))
    footer = _footer(shard, plan, part, manifest, manifest_footer)
    if _fingerprint_there(path) == footer.fingerprint:
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


def _footer(shard: int, plan: Plan, part: pa.Table, manifest: pa.Table, manifest_footer: Footer) -> Footer:
    counts = count_shard(part, {"manifest": manifest}, "image")
    return Footer(
        stage=STAGE,
        stage_version=VERSION,
        fingerprint=_content_hash(part, manifest_footer.identity),
        shard=shard,
        num_shards=plan.num_shards,
        n_in=counts.images.n_in,
        n_ok=counts.images.n_ok,
        n_rejected=counts.images.n_rejected,
        counts=counts.as_dict(),
        inputs={"manifest": manifest_footer.identity},
    )


def _content_hash(part: pa.Table, manifest_identity: str) -> str:
    digest = hashlib.sha256(f"{STAGE} {VERSION} {manifest_identity}\n".encode())
    for row in part.to_pylist():
        digest.update(repr(sorted(_plain(row).items())).encode())
    return digest.hexdigest()


def _plain(row: Mapping[str, Any]) -> Row:
    """What an answer says; how long it took changes no mask."""
    return {key: value for key, value in row.items() if key not in ("seconds", "at")}


def _fingerprint_there(path: Path) -> str:
    try:
        return read_footer(path).fingerprint
    except (FileNotFoundError, DamagedPartError):
        return ""
