"""Options of `infer-colors`."""

from pseudolabel.pipelines.options.base import StageConfig


class InferColorsConfig(StageConfig):
    """Nothing beyond what every stage has: the weights of the field are in `pseudolabel.segmenters`."""
