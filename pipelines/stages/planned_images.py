"""What stages that look at images share: which rows of the manifest, and their pixels as the plan has them."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel.errors import RejectError
from pseudolabel.images import load_image
from pseudolabel.pipelines.stage import Shard

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy import ndarray


def usable_images(manifest: pa.Table) -> list[dict[str, Any]]:
    """Rows of images that can be worked on, by image key; rejected images and annotations are left out."""
    columns = ["image_key", "file_name", "width", "height", "file_digest", "status", "annotation_id", "objects"]
    rows: list[dict[str, Any]] = manifest.select(columns).to_pylist()
    usable = [row for row in rows if row["status"] == "ok" and row["annotation_id"] is None]
    return sorted(usable, key=lambda row: str(row["image_key"]))


def planned_pixels(image: dict[str, Any], shard: Shard) -> 'UInt8[ndarray, "h w 3"]':
    """An image of the manifest, decoded.

    Raises:
        RejectError: it cannot be read, or has another content or size than when `shard` read it.
    """
    rgb = load_image(shard.images_root, image["file_name"], rule=shard.rule, digest=image.get("file_digest"))
    if rgb.shape[:2] != (image["height"], image["width"]):
        planned, now = f"{image['width']}x{image['height']}", f"{rgb.shape[1]}x{rgb.shape[0]}"
        raise RejectError("changed_since_plan", f"planned as {planned}, is {now}")
    return rgb
