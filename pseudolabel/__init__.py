"""Boxes and pretrained models in, scored instance masks out.

The public names are below; each is imported when it is first asked for, so that `import pseudolabel` costs nothing.
docs/python.md shows them at work.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Labels": "pseudolabel.labels:Labels",
    "PseudolabelError": "pseudolabel.errors:PseudolabelError",
    "Run": "pseudolabel.pipelines.api:Run",
    "SoftMask": "pseudolabel.masks:SoftMask",
    "Student": "pseudolabel.students.save:TrainedStudent",
    "evaluate": "pseudolabel.pipelines.api:evaluate",
    "label_image": "pseudolabel.labeller:label_image",
    "load_segmenter": "pseudolabel.labeller:load_segmenter",
    "write_candidates": "pseudolabel.pipelines.tools.add_candidates:write_candidates",
}

__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
