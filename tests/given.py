"""Given boxes for tests, numbered from 0."""

from collections.abc import Sequence
from typing import Any

from pseudolabel.candidates import GivenBox


def given_boxes(boxes_xyxy: Any, category_ids: Sequence[int] | None = None) -> list[GivenBox]:
    """Boxes by their corners, all of category 1 unless said otherwise."""
    rows = [[float(value) for value in row] for row in boxes_xyxy]
    return [
        GivenBox.from_xyxy(place, category_ids[place] if category_ids else 1, row) for place, row in enumerate(rows)
    ]
