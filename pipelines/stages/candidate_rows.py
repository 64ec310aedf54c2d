"""The rows of an image in a table of candidates."""

from collections.abc import Iterable
from typing import Any

from pseudolabel import records
from pseudolabel.candidates import Candidate, ManifestImage
from pseudolabel.errors import RejectError


def candidate_rows(image: ManifestImage, found: Iterable[Candidate] | RejectError, stage: str) -> list[dict[str, Any]]:
    """One row per candidate, one `empty` row where there is none, one `rejected` row where the image failed."""
    key = {"image_key": image.key}
    if isinstance(found, RejectError):
        return [key | records.rejected(stage, found.reason, found.detail)]
    return [key | one.to_row() | records.ok(stage) for one in found] or [key | records.empty(stage)]
