"""The pixels of an image as the plan has them, for every stage that looks at images."""

from typing import TYPE_CHECKING

from pseudolabel.candidates import ManifestImage
from pseudolabel.errors import RejectError
from pseudolabel.images import load_image
from pseudolabel.pipelines.stage import Shard

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy import ndarray


def planned_pixels(image: ManifestImage, shard: Shard) -> 'UInt8[ndarray, "h w 3"]':
    """An image of the manifest, decoded.

    Raises:
        RejectError: it cannot be read, or has another content or size than when `shard` read it.
    """
    rgb = load_image(shard.images_root, image.file_name, rule=shard.rule, digest=image.file_digest)
    if rgb.shape[:2] != image.size_hw:
        planned, now = f"{image.size_hw[1]}x{image.size_hw[0]}", f"{rgb.shape[1]}x{rgb.shape[0]}"
        raise RejectError("changed_since_plan", f"planned as {planned}, is {now}")
    return rgb
