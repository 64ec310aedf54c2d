"""What a mask is made of: several parts, and holes."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

_EIGHT = np.ones((3, 3), dtype=bool)


def without_islands(mask: Bool[np.ndarray, "h w"], *, smallest_share: float) -> Bool[np.ndarray, "h w"]:
    """The mask without the parts smaller than that share of its largest one; parts touch along edges and corners.

    An object in several parts, behind a pole for instance, keeps them; crumbs go.
    """
    labels, count = ndimage.label(mask, structure=_EIGHT)
    if count < 2 or smallest_share <= 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    keep = sizes >= smallest_share * sizes.max()
    keep[0] = False
    kept: Bool[np.ndarray, "h w"] = keep[labels]
    return kept


def without_pinholes(mask: Bool[np.ndarray, "h w"], *, largest_share: float) -> Bool[np.ndarray, "h w"]:
    """The mask with the holes filled that are smaller than that share of its area; larger ones are real holes.

    A hole is background that is enclosed along edges; what reaches the crop's border is none.
    """
    labels, count = ndimage.label(~mask)
    if count == 0 or largest_share <= 0:
        return mask
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    fill = sizes < largest_share * mask.sum()
    fill[border] = False
    fill[0] = False
    filled: Bool[np.ndarray, "h w"] = mask | fill[labels]
    return filled
