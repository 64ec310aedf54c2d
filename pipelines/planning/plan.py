"""The frozen plan of a run: which image belongs to which shard, written once, read by every worker.

`plan.json` holds what is said once for the run (categories, image folder, EXIF rule), `plan/part-*.parquet` the rows of
each shard as the reader gave them. Rows go to shards by a hash of their image key, so the assignment does not depend on
the order of the input. Reading is streamed: rows wait in one spool file per shard, never all in memory.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pseudolabel import records
from pseudolabel.errors import InputError, MachineError, StaleOutputError
from pseudolabel.files import fsync, machine_faults_named, temporary_name
from pseudolabel.pipelines.planning.convention import BoxConvention
from pseudolabel.pipelines.planning.counted import CountedRows, default_shards, sample_size
from pseudolabel.pipelines.run.commit import Footer, commit_table, damage_named
from pseudolabel.pipelines.run.conservation import count_shard
from pseudolabel.pipelines.run.leftovers import sweep_run
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pixel_rule import ExifRule, PixelRule, Stretch

PLAN_STAGE = "plan"
_SPOOL_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fixed for a whole run.

    `digest` tells one plan from another, `sha256` a damaged file from what was written: it is of all other fields.
    """

    num_shards: int
    images_root: str
    exif: ExifRule
    source: str
    n_images: int
    n_objects: int
    rejected: dict[str, int]
    categories: list[dict[str, Any]]
    info: dict[str, Any]
    licenses: list[dict[str, Any]]
    digest: str
    shard_digests: list[str] = field(default_factory=list)
    stretch: Stretch = "none"
    channels: list[int] = field(default_factory=list)
    page: int | None = None
    notes: list[str] = field(default_factory=list)  # what the user was told when the plan was made
    sample: float | None = None  # the share or number of the images that the run has; None: all
    sha256: str = field(default="", compare=False)
    format_version: int = records.FORMAT_VERSION

    @property
    def class_names(self) -> dict[int, str]:
        """Name by category id."""
        return {category["id"]: category["name"] for category in self.categories}

    @property
    def pixel_rule(self) -> PixelRule:
        """How every image of the run is decoded."""
        return PixelRule(self.exif, self.stretch, tuple(self.channels), self.page)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a plan is made from."""

    images_root: str | Path
    source: str
    num_shards: int | None  # None: by the number of images
    exif: ExifRule
    categories: list[dict[str, Any]]
    info: dict[str, Any]
    licenses: list[dict[str, Any]]
    stretch: Stretch = "auto"
    channels: tuple[int, ...] = ()
    page: int | None = None
    notes: list[str] = field(default_factory=list)  # may grow until the last row is read
    wants_boxes: bool = False  # annotations were given, so a plan without one box is a mistake
    sample: float | None = None  # of the images, a share or a number


@dataclass(slots=True)
class _Seen:
    """What the rows of a reader were, and the first reject of each reason."""

    images: int = 0
    objects: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    convention: BoxConvention = field(default_factory=BoxConvention)

    def add(self, row: Mapping[str, Any]) -> None:
        if row["status"] == "rejected":
            self.rejected[row["reason"]] += 1
            self.examples.setdefault(row["reason"], row)
            return
        self.images += 1
        self.objects += len(row.get("objects") or ())
        self.convention.add(row)

    def told(self) -> str:
        """`rejected: 2 bad_record, such as photo.jpg: images[0].id is 'a'`."""
        if not self.rejected:
            return "it has none"
        told = [
            f"{count} {reason}, such as {records.reject_text(self.examples[reason])}"
            for reason, count in self.rejected.most_common(3)
        ]
        return f"rejected: {'; '.join(told)}"


def shard_of(image_key: str, num_shards: int) -> int:
    """The shard of an image: the same for every order of the input and on every machine.

    Args:
        image_key: or what several images have in common that belong into one shard.
    """
    digest = hashlib.blake2b(image_key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_shards


def read_plan(run: RunPaths) -> Plan:
    """The plan of a run folder.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    try:
        text = run.plan.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{run.root} holds no plan; make one with  pseudolabel shard {run.typed} --images DIR"
        ) from None
    except NotADirectoryError:
        raise InputError(f"{run.root} is a file; expected a run folder, which  pseudolabel shard  makes") from None
    with damage_named(run.plan):
        values = json.loads(text)
        if values.get("format_version", 0) > records.FORMAT_VERSION:
            raise InputError(f"{run.plan}: written by a newer pseudolabel; upgrade this one")
        plan = Plan(**values)
        if plan.sha256 != _sha256(plan):
            raise ValueError("its digest is not that of its content")
    return plan


def write_plan(run: RunPaths, request: PlanRequest, rows: Iterable[Mapping[str, Any]]) -> Plan:
    """Assign every row to its shard and freeze the result; an equal plan that is there already is kept.

    Raises:
        StaleOutputError: another plan is there.
        InputError: the folder holds other things, or there is not one image, or not one box where boxes were given, or
            the boxes are corners, centres or shares of the image.
    """
    _refuse_foreign_folder(run)
    sweep_run(run)
    with _spool(run) as folder:
        num_shards, chosen = _chosen(request, rows, folder)
        seen = _spool_rows(chosen, folder, num_shards)
        _refuse_nothing(request, seen)
        digests = [_shard_digest(folder, shard) for shard in range(num_shards)]
        plan = _plan(request, seen, digests)
        existing = _existing_plan(run, plan)
        if existing is not None:
            return existing
        for shard, digest in enumerate(digests):
            _commit_shard(run, folder, shard, num_shards, digest)
    return _freeze(run, plan)


def _chosen(
    request: PlanRequest, rows: Iterable[Mapping[str, Any]], folder: Path
) -> tuple[int, Iterable[Mapping[str, Any]]]:
    """The number of shards and the rows that go to them; where the one or the other hangs on it, they are counted."""
    if request.num_shards is not None and request.sample is None:
        return request.num_shards, rows
    counted = CountedRows(rows, folder)
    n_wanted = counted.n_images
    if request.sample is not None and counted.n_images:
        n_wanted = sample_size(request.sample, counted.n_images)
        request.notes.append(f"a sample of {n_wanted} of {counted.n_images} images")
    return request.num_shards or default_shards(n_wanted), counted.rows(n_wanted if request.sample else None)


def _refuse_nothing(request: PlanRequest, seen: _Seen) -> None:
    if not seen.images:
        raise InputError(f"{request.source}: not one usable image ({seen.told()})")
    if request.wants_boxes and not seen.objects:
        cure = (
            "To go on without boxes, leave --annotations away" if request.sample is None else "Take a larger --sample"
        )
        raise InputError(f"{request.source}: not one usable box on {seen.images} images ({seen.told()}). {cure}")
    trouble = seen.convention.trouble()
    if trouble is not None:
        raise InputError(f"{request.source}: {trouble}")


def plan_text(plan: Plan) -> str:
    """The content of `plan.json`, with its digest."""
    return json.dumps(asdict(replace(plan, sha256=_sha256(plan))), indent=1, ensure_ascii=False) + "\n"


def _sha256(plan: Plan) -> str:
    return hashlib.sha256(json.dumps(asdict(replace(plan, sha256="")), sort_keys=True).encode()).hexdigest()


def _plan(request: PlanRequest, seen: _Seen, digests: list[str]) -> Plan:
    rule = PixelRule(request.exif, request.stretch, request.channels, request.page)
    said = {"root": str(request.images_root), "pixels": asdict(rule), "categories": request.categories}
    digest = hashlib.sha256(json.dumps([said, digests], sort_keys=True).encode()).hexdigest()
    return Plan(
        num_shards=len(digests),
        images_root=str(request.images_root),
        exif=rule.exif,
        stretch=rule.stretch,
        channels=list(rule.channels),
        page=rule.page,
        notes=list(request.notes),
        sample=request.sample,
        source=request.source,
        n_images=seen.images,
        n_objects=seen.objects,
        rejected=dict(sorted(seen.rejected.items())),
        categories=request.categories,
        info=request.info,
        licenses=request.licenses,
        digest=digest,
        shard_digests=digests,
    )


def _refuse_foreign_folder(run: RunPaths) -> None:
    if run.root.exists() and not run.root.is_dir():
        raise InputError(f"{run.root} is a file; give a folder for the run")
    names = (
        {path.name for path in run.root.iterdir()} if run.root.is_dir() else set()
    )  # one look: others may be starting
    ours = bool(names & {run.plan.name, PLAN_STAGE})  # of one look: others may be starting
    if not ours and any(not name.startswith(".") for name in names):
        raise InputError(f"{run.root} is not empty and not a run of pseudolabel; choose another folder")


@contextmanager
def _spool(run: RunPaths) -> Iterator[Path]:
    folder = run.root / temporary_name("spool")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise MachineError(f"cannot write {run.root}: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _spool_rows(rows: Iterable[Mapping[str, Any]], folder: Path, num_shards: int) -> _Seen:
    waiting: dict[int, list[str]] = {}
    seen = _Seen()
    for number, row in enumerate(rows, start=1):
        seen.add(row)
        together = row.get("shard_key") or row["image_key"]
        told = {key: value for key, value in row.items() if key != "shard_key"}
        waiting.setdefault(shard_of(together, num_shards), []).append(json.dumps(told, sort_keys=True))
        if number % _SPOOL_ROWS == 0:
            _flush(waiting, folder)
    _flush(waiting, folder)
    return seen


def _flush(waiting: dict[int, list[str]], folder: Path) -> None:
    for shard, lines in waiting.items():
        with machine_faults_named(folder), (folder / f"{shard:05d}").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    waiting.clear()


def _shard_digest(folder: Path, shard: int) -> str:
    return hashlib.sha256("\n".join(_spooled_lines(folder, shard)).encode()).hexdigest()


def _spooled_lines(folder: Path, shard: int) -> list[str]:
    path = folder / f"{shard:05d}"
    return sorted(path.read_text(encoding="utf-8").split("\n")[:-1]) if path.exists() else []


def _commit_shard(run: RunPaths, folder: Path, shard: int, num_shards: int, digest: str) -> None:
    rows = [json.loads(line) for line in _spooled_lines(folder, shard)]
    rows.sort(key=lambda row: (row["image_key"], row.get("annotation_id") is not None, row.get("annotation_id") or 0))
    table = records.table_from_rows(rows, records.MANIFEST)
    counts = count_shard(table, {PLAN_STAGE: table}, "image")
    images = counts.images
    footer = Footer(
        stage=PLAN_STAGE,
        stage_version=1,
        fingerprint=digest,
        shard=shard,
        num_shards=num_shards,
        n_in=images.n_in,
        n_ok=images.n_ok,
        n_rejected=images.n_rejected,
        counts=counts.as_dict(),
    )
    commit_table(table, run.part(PLAN_STAGE, shard, num_shards), footer)


def _existing_plan(run: RunPaths, plan: Plan) -> Plan | None:
    if not run.plan.exists():
        return None
    existing = read_plan(run)
    if existing.digest == plan.digest:
        return existing
    what = next(
        (
            f"{name} {getattr(existing, name)} -> {getattr(plan, name)}"
            for name in ("num_shards", "images_root", "exif", "stretch", "channels", "page", "n_images", "n_objects")
            if getattr(existing, name) != getattr(plan, name)
        ),
        "the input's content changed",
    )
    raise StaleOutputError(f"{run.root} already has another plan: {what}; use another run folder, or delete this one")


def _freeze(run: RunPaths, plan: Plan) -> Plan:
    """Make plan.json by a link, which fails where another process was faster: whoever wins, all use the same one."""
    temporary = run.root / temporary_name(run.plan.name)
    with machine_faults_named(run.plan):
        try:
            temporary.write_text(plan_text(plan), encoding="utf-8")
            fsync(temporary)
            os.link(temporary, run.plan)
            fsync(run.root)
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
    existing = _existing_plan(run, plan)
    assert existing is not None, "plan.json was just made"
    return existing
