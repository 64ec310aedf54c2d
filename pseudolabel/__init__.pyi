from pseudolabel.errors import PseudolabelError
from pseudolabel.labeller import label_image, load_segmenter
from pseudolabel.labels import Labels
from pseudolabel.masks import SoftMask
from pseudolabel.pipelines.api import Run, evaluate
from pseudolabel.pipelines.tools.add_candidates import write_candidates
from pseudolabel.students.save import TrainedStudent as Student

__version__: str

__all__ = [
    "Labels",
    "PseudolabelError",
    "Run",
    "SoftMask",
    "Student",
    "__version__",
    "evaluate",
    "label_image",
    "load_segmenter",
    "write_candidates",
]
