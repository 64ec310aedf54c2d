"""Options of `review`."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import Config, option

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class ReviewConfig(Config):
    """Who looks at how many objects."""

    budget: int = option(
        100, "how many objects to look at, earlier answers of the same reviewer counted", group="main", ge=1
    )
    reviewer: str = option("me", "whose answers these are: RUN/reviews/NAME.jsonl", group="main", pattern=_NAME)
    import_file: Path | None = option(
        None, "no page: take in masks that were corrected elsewhere, a COCO file; those that differ from fuse's count",
        group="main",
    )  # fmt: skip
    port: int = option(8765, "port of the page on 127.0.0.1, 0 = any free one", group="main", ge=0, le=65535)
    open: bool = option(False, "open the page in this machine's browser", group="main")
    order: Literal["drawn", "worst"] = option(
        "drawn", "drawn: by doubt, over scores and classes; worst: the lowest scores first", group="main"
    )
    seed: int = option(0, "random seed: of what is drawn", needs={"order": ("drawn",)}, ge=0)
