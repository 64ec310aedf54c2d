"""Formulas that hold for arrays of numpy and for tensors of torch alike: `fuse` has the former, training the latter.

A module written so imports no torch, which would cost `fuse` three seconds and half a gigabyte for nothing.
"""

import sys
from typing import Any

import numpy as np

Array = Any  # np.ndarray or torch.Tensor, of which the shapes are said with jaxtyping


def namespace(array: Array) -> Any:
    """The module whose `where`, `arange` and the like make arrays of this kind: numpy or torch."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]
