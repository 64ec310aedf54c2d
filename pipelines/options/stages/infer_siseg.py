"""Options of `infer-siseg`."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import option
from pseudolabel.pipelines.options.base import StageConfig


class InferSisegConfig(StageConfig):
    """Options of `infer-siseg`. Lengths in cells are of 4 px of the resized image."""

    weights: Path | None = option(
        None, "trained weights: a model that train-siseg wrote; default: the run's own", group="main"
    )
    background: Literal["semantic", "constant"] = option(
        "semantic", "semantic: the label map decides what is background; constant: scores against --background-score",
        group="main",
    )  # fmt: skip
    background_score: float = option(
        0.25, "score of the constant background", group="main", needs={"background": ("constant",)}, gt=0, lt=1
    )
    smallest_share: float = option(0.0005, "pieces below this share of the image are dropped", group="main", ge=0, lt=1)
    pictures: int = option(
        0, "how many pictures: for the first so many images of every shard, of what happens", group="main",
        changes_result=False, ge=0,
    )  # fmt: skip
    mirror: bool = option(True, "average the boundary with that of the mirrored image")
    centroid_steps: int = option(300, "steps of the refinement of centroids", group="paper", ge=1)
    weak_cells: float = option(
        1.5, "displacements below this, in cells of 4 px, make a centroid's region", group="paper", gt=0
    )
    walk_steps: int = option(256, "steps of the random walk; 0 = none", group="paper", ge=0)
    walk_radius: int = option(
        5, "reach of one step of the walk, in cells", group="paper", needs={"walk_steps": ()}, ge=2, le=20
    )
    walk_exponent: float = option(10.0, "sharpness of the affinities", group="paper", needs={"walk_steps": ()}, gt=0)
    threads: int = option(1, "CPU threads: of one worker's forward pass", changes_result=False, group="machine", ge=1)
