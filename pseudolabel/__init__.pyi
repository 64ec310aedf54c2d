from pseudolabel.errors import PseudolabelError as PseudolabelError
from pseudolabel.labeller import label_image as label_image
from pseudolabel.labeller import load_segmenter as load_segmenter
from pseudolabel.labels import Labels as Labels
from pseudolabel.masks import SoftMask as SoftMask
from pseudolabel.pipelines.api import Run as Run
from pseudolabel.pipelines.api import evaluate as evaluate
from pseudolabel.pipelines.tools.add_candidates import write_candidates as write_candidates

__version__: str
