"""`verify`: all that a run hands out, and all that it stands on, read to the last byte."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel import records
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import content_digest, read_file
from pseudolabel.pipelines.graph import STAGES, load_stage
from pseudolabel.pipelines.planning.plan import PLAN_STAGE, Plan, read_plan
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, damage_named, read_footer, read_part
from pseudolabel.pipelines.run.conservation import Unit, count_shard
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.seals import check_seal, read_seal, sealed
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.pipelines.runner import export_origin, exports
from pseudolabel.pipelines.status import begun_tables
from pseudolabel.sources import open_source
from pseudolabel.sources.folder import Folder

_TABLE_STAGES = {"plan": "shard", "manifest": "shard"}  # whose schema is the table's


def verify_run(run: RunPaths, *, content: bool = False) -> list[str]:
    """Everything that is wrong with a run, one line each; empty where all holds.

    Read are the plan, every byte of every part (digests, schema, counts against rows, images and objects against the
    manifest), the configs, and by size and sha256 the exports (those of the parts that stand there now, with as many
    annotations) and the models with their YAML. Image files have to have the size that `shard` saw, and no later time.

    Args:
        content: read every image, too: has it the content that `shard` saw?

    Raises:
        InputError: the folder holds no plan.
    """
    try:
        plan = read_plan(run)
    except DamagedPartError as error:
        return [str(error)]
    problems = [str(error) for error in saved_configs(run)[1]]
    for table, stage in {PLAN_STAGE: PLAN_STAGE, **begun_tables(run)}.items():
        problems += _verify_table(run, plan, table, stage)
    problems += _verify_files(run)
    return problems + list(_verify_images(run, plan, content=content))


def _verify_table(run: RunPaths, plan: Plan, table: str, stage: str) -> Iterator[str]:
    footers: list[Footer] = []
    for shard in range(plan.num_shards):
        path = run.part(table, shard, plan.num_shards)
        try:
            footer, rows = read_footer(path), read_part(path)
        except FileNotFoundError:
            yield f"{path}: missing"
        except InputError as error:
            yield str(error)
        else:
            footers.append(footer)
            with damage_named(path):
                yield from (f"{path}: {problem}" for problem in _problems(run, plan, table, shard, footer, rows))
    stage = stage or next((footer.stage for footer in footers), "")
    if stage in STAGES and len(footers) == plan.num_shards:
        yield from _verify_exports(run, plan, table, stage, footers)


def _problems(run: RunPaths, plan: Plan, table: str, shard: int, footer: Footer, rows: pa.Table) -> Iterator[str]:
    if (footer.shard, footer.num_shards) != (shard, plan.num_shards):
        yield f"says that it is shard {footer.shard} of {footer.num_shards}"
    if table == PLAN_STAGE and footer.fingerprint != plan.shard_digests[shard]:
        yield "is of another plan than plan.json"
    schema = _schema(table, footer.stage)
    if schema is not None and not rows.schema.equals(schema):
        yield f"its columns are not those of {table}: {_difference(rows.schema, schema)}"
        return
    if footer.counts:
        yield from _count_problems(run, plan, table, shard, footer, rows)


def _count_problems(run: RunPaths, plan: Plan, table: str, shard: int, footer: Footer, rows: pa.Table) -> Iterator[str]:
    """What the footer says against its rows and against the manifest (of the manifest itself: the plan)."""
    asked = PLAN_STAGE if table in (PLAN_STAGE, "manifest") or footer.inputs.keys() == {PLAN_STAGE} else "manifest"
    try:
        source = rows if table == PLAN_STAGE else read_part(run.part(asked, shard, plan.num_shards))
    except (FileNotFoundError, DamagedPartError):
        return  # said where that table is looked at
    unit: Unit = "object" if footer.stage in STAGES and load_stage(footer.stage).unit == "object" else "image"
    found, said = count_shard(rows, {asked: source}, unit), footer.counted
    for name, count, told in (("images", found.images, said.images), ("objects", found.objects, said.objects)):
        if not count.adds_up:
            yield f"of {count.n_in} {name} of the {asked} {count.n_ok} came out and {count.n_rejected} were rejected"
        elif count != told:
            yield f"its footer counts {told.n_ok} of {told.n_in} {name}, its rows {count.n_ok} of {count.n_in}"
    if asked == "manifest" and (lost := _usable(source) ^ set(rows["image_key"].to_pylist())):
        yield f"{len(lost)} images are in it or in the manifest alone, such as {min(lost)}"


def _usable(manifest: pa.Table) -> set[str]:
    images = manifest.filter(pc.and_(pc.equal(manifest["status"], "ok"), pc.is_null(manifest["annotation_id"])))
    return set(images["image_key"].to_pylist())


def _schema(table: str, stage: str) -> pa.Schema | None:
    name = _TABLE_STAGES.get(table, stage)
    if name in STAGES:
        return load_stage(name).schema
    return records.CANDIDATES if table.startswith("candidates/") else None


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    names = [field.name for field in wanted if field.name not in found.names or found.field(field.name) != field]
    return ", ".join([*names, *(name for name in found.names if name not in wanted.names)]) or "their order"


def _verify_exports(run: RunPaths, plan: Plan, table: str, stage: str, footers: list[Footer]) -> Iterator[str]:
    for path in exports(run, load_stage(stage), table):
        try:
            made = read_seal(run, path)
        except DamagedPartError:
            continue  # said where all sealed files are looked at
        if made is None:
            yield f"{path}: missing; the same {stage} makes it again"
        elif made.made_of != export_origin(plan, footers):
            yield f"{path}: made of other parts than stand there now; the same {stage} makes it again"
        elif "annotations" in made.entries:
            rows = sum(footer.counted.notes.get("masks", 0) for footer in footers)
            if made.entries["annotations"] != rows:
                yield f"{path}: has {made.entries['annotations']} annotations, its parts have {rows}"


def _verify_files(run: RunPaths) -> Iterator[str]:
    models = sorted(path for path in (run.root / "models").glob("*") if path.is_file() and path.name[0] != ".")
    for path in sorted({*sealed(run), *models}):
        try:
            check_seal(run, path)
        except DamagedPartError as error:
            yield str(error)


def _verify_images(run: RunPaths, plan: Plan, *, content: bool) -> Iterator[str]:
    here = isinstance(open_source(plan.images_root), Folder)  # of one in a store or an archive its content alone tells
    for shard in range(plan.num_shards):
        path = run.part("manifest", shard, plan.num_shards)
        try:
            rows, made_ns = read_part(path).to_pylist(), path.stat().st_mtime_ns
        except (FileNotFoundError, DamagedPartError):
            continue  # said where the table is looked at
        for row in rows:
            if row["status"] == "ok" and row["annotation_id"] is None and (content or here):
                problem = _content_problem if content else _stat_problem
                yield from problem(plan.images_root, row, made_ns)


def _content_problem(root: str, row: records.Row, made_ns: int) -> Iterator[str]:
    del made_ns
    try:
        if content_digest(read_file(root, row["file_name"])) != row["file_digest"]:
            yield f"{row['file_name']}: its content is not what it was when shard read it"
    except RejectError as error:
        yield f"{row['file_name']}: {error}"


def _stat_problem(root: str, row: records.Row, made_ns: int) -> Iterator[str]:
    path = Path(root) / row["file_name"]
    try:
        found = path.stat()
    except OSError as error:
        yield f"{path}: {error.strerror}"
        return
    known = row["file_bytes"] is not None  # else the manifest is of somebody who did not write it down
    if (known and found.st_size != row["file_bytes"]) or found.st_mtime_ns > made_ns:
        yield f"{path}: written since shard read it (verify --content tells whether its content changed)"
