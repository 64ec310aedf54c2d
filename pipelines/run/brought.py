"""Parts whose rows no stage computed: masks that were brought, answers of a review. A hash of the rows says which."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pseudolabel.candidates import usable_images
from pseudolabel.formats.extras import object_extras
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, read_footer
from pseudolabel.pipelines.run.conservation import count_shard

if TYPE_CHECKING:
    from pseudolabel.brought.base import KnownRun


def brought_footer(
    part: pa.Table,
    manifest: pa.Table,
    manifest_footer: Footer,
    *,
    stage: str,
    version: int,
    unhashed: Collection[str] = (),
    versions: Mapping[str, str] | None = None,
) -> Footer:
    """The footer of such a part: counted against the manifest of its shard, its fingerprint a hash of its rows.

    Args:
        unhashed: columns that change nothing of what is made of the part.
        versions: of the libraries that had a hand in it.
    """
    counts = count_shard(part, {"manifest": manifest}, "image")
    if not counts.images.adds_up:
        raise AssertionError(f"{stage}, shard {manifest_footer.shard:05d}: {counts.images}")
    digest = hashlib.sha256(f"{stage} {version} {manifest_footer.identity}\n".encode())
    for row in part.drop_columns(list(unhashed)).to_pylist():
        digest.update(repr(sorted(row.items())).encode())
    return Footer(
        stage=stage,
        stage_version=version,
        fingerprint=digest.hexdigest(),
        shard=manifest_footer.shard,
        num_shards=manifest_footer.num_shards,
        n_in=counts.images.n_in,
        n_ok=counts.images.n_ok,
        n_rejected=counts.images.n_rejected,
        counts=counts.as_dict(),
        inputs={"manifest": manifest_footer.identity},
        versions=dict(versions or {}),
    )


def footer_there(path: Path) -> Footer | None:
    """What a part says of itself; None where there is none, or a damaged one."""
    try:
        return read_footer(path)
    except (FileNotFoundError, DamagedPartError):
        return None


def known_by(manifests: Sequence[pa.Table]) -> "KnownRun":
    """What a file of masks may call the images and objects of a run, whose manifest parts these are by shard."""
    from pseudolabel.brought.base import KnownImage, known_run

    source_ids = {number: extra.get("own_id") for one in manifests for number, extra in object_extras(one).items()}
    return known_run(
        (
            KnownImage(image.key, image.file_name, image.image_id, image.size_hw, shard, image.objects)
            for shard, table in enumerate(manifests)
            for image in usable_images(table)
        ),
        source_ids,
    )
