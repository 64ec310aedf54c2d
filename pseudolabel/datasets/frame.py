"""Which frame boxes were drawn in, where a picture carries an EXIF rotation that swaps its sides."""

from collections.abc import Sequence

from pseudolabel.errors import RejectError
from pseudolabel.images import ImageHeader
from pseudolabel.pixel_rule import ExifRule

Box = Sequence[float]
_SLACK_PX, _SLACK = 1.0, 0.01  # of boxes that were rounded, or drawn a little beyond the edge


def check_frame(
    claimed_hw: tuple[int | None, int | None], header: ImageHeader, boxes_xywh: Sequence[Box], rule: ExifRule
) -> None:
    """Pass if boxes lie in the frame that the rule gives the picture.

    The size that annotations claim says which frame they mean, and the boxes do where they fit only one of the two;
    where they differ the boxes are believed, because some tools write the size of the stored pixels beside boxes that
    were drawn on the upright picture. `transpose` takes boxes that fit both frames for upright ones, whatever size is
    claimed; `auto` and `ignore` go by the claim.

    Raises:
        RejectError: `size_mismatch`, with the rule under which the boxes are right.
    """
    here, there = header.size_hw, header.size_hw[::-1]
    fits_here = _fit(boxes_xywh, here)
    if header.swaps_sides and boxes_xywh and not fits_here and _fit(boxes_xywh, there):
        raise RejectError("size_mismatch", _drawn_in_the_other(rule, here))
    if claimed_hw in ((None, None), here):
        return
    found = f"size is {here[1]}x{here[0]}, the annotations say {claimed_hw[1]}x{claimed_hw[0]}."
    if claimed_hw != there or not header.swaps_sides:
        raise RejectError("size_mismatch", found)
    if not boxes_xywh or (fits_here and (rule == "transpose" or not _fit(boxes_xywh, there))):
        return
    raise RejectError("size_mismatch", f"{found} The file carries an EXIF rotation. {_choice(rule, fits_here)}")


def _fit(boxes_xywh: Sequence[Box], size_hw: tuple[int, int]) -> bool:
    height, width = size_hw
    right, bottom = width * (1 + _SLACK) + _SLACK_PX, height * (1 + _SLACK) + _SLACK_PX
    return all(x + box_width <= right and y + box_height <= bottom for x, y, box_width, box_height in boxes_xywh)


def _drawn_in_the_other(rule: ExifRule, here: tuple[int, int]) -> str:
    if rule == "ignore":
        return (
            f"the boxes do not fit the stored {here[1]}x{here[0]} px, but the picture turned by its EXIF rotation. "
            "Apply it with  --exif transpose"
        )
    return (
        f"the boxes do not fit the upright {here[1]}x{here[0]} px, but the pixels as they are stored. "
        "Take these with  --exif ignore"
    )


def _choice(rule: ExifRule, fits_here: bool) -> str:
    if rule == "ignore":
        return "Apply it with  --exif transpose"
    if not fits_here:
        return "The boxes fit neither frame."
    return (
        "The boxes fit both frames: if they were drawn on the upright picture (Label Studio), say  --exif transpose ; "
        "if on the stored pixels,  --exif ignore"
    )
