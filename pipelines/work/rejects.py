"""What was rejected in a run, row by row: which file, which annotation, why, and what was found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from pseudolabel import records
from pseudolabel.pipelines.run.commit import Footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.sources.place import plain_name

_COLUMNS = ["image_key", "annotation_id", "status", "reason", "detail", "stage"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """One image or annotation that could not be used."""

    table: str
    file: str
    annotation_id: int | None  # None: it is the image
    reason: str
    detail: str

    @property
    def text(self) -> str:
        """For people, in one line."""
        return records.reject_text(
            {"image_key": self.file, "annotation_id": self.annotation_id, "reason": self.reason, "detail": self.detail}
        )


def rejected_rows(run: RunPaths, table: str, footers: Iterable[Footer]) -> Iterator[Rejected]:
    """Every rejected row of a table's parts; parts whose footers count none are not opened.

    Raises:
        FileNotFoundError, DamagedPartError: a part that is to be opened is gone or damaged.
    """
    for footer in footers:
        counts = footer.counted
        if counts.images.n_rejected or counts.objects.n_rejected:
            part = read_part(run.part(table, footer.shard, footer.num_shards))
            known = part.select([name for name in _COLUMNS if name in part.column_names])
            for row in known.filter(pc.equal(known["status"], "rejected")).to_pylist():
                number, name = row.get("annotation_id"), plain_name(row["image_key"])
                yield Rejected(table, name, number, row["reason"] or "", row["detail"] or "")


def example(run: RunPaths, table: str, footers: Iterable[Footer]) -> str:
    """One rejected row in words: of an annotation where there is one, since an image takes its annotations with it."""
    first = ""
    for row in rejected_rows(run, table, footers):
        if row.reason != "image_rejected":
            return row.text
        first = first or row.text
    return first
