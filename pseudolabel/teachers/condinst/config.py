"""Options of the CondInst teachers: network, losses and training; imports no torch.

Defaults are those that work on small data; where a paper or its released code has others, the help says which.
"""

from typing import Annotated, Literal

from pydantic import Field

from pseudolabel.condinst.config import CondInstConfig
from pseudolabel.config import Values, option
from pseudolabel.teachers.config import MethodConfig, method_option
from pseudolabel.training.config import FinetuneConfig

_BOXES = ("boxes", "mixed")  # kinds of supervision that look at boxes
_MASKS = ("masks", "mixed")  # and at true masks
_PAIRS = {"supervision": _BOXES, "shape_loss": ("pairwise",)}


class BoxInstConfig(FinetuneConfig, CondInstConfig, MethodConfig):
    """How BoxInst is built and trained."""

    method: str = method_option("boxinst")
    batch_size: int = option(2, "images per step and process", group="main", ge=1)
    image_px: int = option(
        640, "short side of the images that are seen, the long one twice that at most", group="main", ge=32
    )
    window_px: int = option(
        0,
        "side of the random part of every image that a step sees, a multiple of 32; 0: all of it",
        ge=0,
        multiple_of=32,
    )
    scales: list[Annotated[float, Field(ge=0.25, le=4)]] = option(
        [], "sizes to learn at, relative to image_px, one at random for every step, such as 0.8 0.9 1 1.1; a moving "
        "average sees image_px always. None: that alone",
    )  # fmt: skip
    finest_px: float = option(
        64.0,
        "half-size of objects up to which the finest level learns them, in pixels of what the network sees; less where "
        "objects are small",
        group="main",
        gt=0,
    )
    class_agnostic: bool = option(
        True,
        "one class for all objects, as a given box says which; off: the classes of the boxes are learned, to find "
        "objects where no box is given",
        group="main",
    )
    freeze: bool = option(True, "keep the encoder's layers up to stride 4 as they are, if it is pretrained")
    flip: bool = option(True, "mirror half of the images")
    supervision: Literal["boxes", "masks", "mixed"] = option(
        "boxes", "boxes alone; true masks, as a reference; mixed: masks where there are some, boxes elsewhere"
    )
    mask_classes: list[str] = option(
        [], "use the masks of these classes alone; repeat for more", needs={"supervision": ("mixed",)}
    )
    mask_loss: Literal["dice", "pairwise"] = option(
        "dice",
        "what true masks teach by: dice; or shadows and pairs of neighbours, alike and unlike (BoxInst's table 2)",
        group="paper",
        needs={"supervision": _MASKS},
    )
    box_loss: Literal["projection", "mil"] = option(
        "projection",
        "what ties a mask to its box: its shadows; or bags of rows and columns, as BBTP has it",
        group="paper",
        needs={"supervision": _BOXES},
    )
    shape_loss: Literal["pairwise", "smoothness", "levelset"] = option(
        "pairwise",
        "what shapes a mask in its box: like-coloured neighbours; BBTP's smoothness; or BoxLevelSet's energy of two "
        "regions",
        group="paper",
        needs={"supervision": _BOXES},
    )
    deep_features: bool = option(
        False,
        "regions are alike in the mask branch's features, too, and not in colour alone",
        group="paper",
        needs={"supervision": _BOXES, "shape_loss": ("levelset",)},
    )
    classification: Literal["focal", "varifocal"] = option("focal", "class loss", group="paper")
    varifocal_alpha: float = option(
        0.75,
        "weight of negatives in the varifocal loss (BoxSeg's code: 0.25)",
        group="paper",
        needs={"classification": ("varifocal",)},
        ge=0,
    )
    positives: int = option(64, "locations per image that train the mask head", ge=1)
    least_similarity: float = option(
        0.3,
        "least colour similarity of neighbours that should agree (BoxInst's paper: 0.1)",
        needs=_PAIRS,
        ge=0,
        le=1,
    )
    theta: float = option(2.0, "scale of colour distances", group="paper", needs=_PAIRS, gt=0)
    neighbourhood: int = option(
        3, "side of the neighbourhood, in cells of 4 px", group="paper", needs={"supervision": _BOXES}, ge=3
    )
    dilation: int = option(
        2, "distance of the neighbours, in cells of 4 px", group="paper", needs={"supervision": _BOXES}, ge=1
    )
    bottom_px: int = option(
        10,
        "rows at an image's bottom whose colours are not trusted, as COCO's boxes end there",
        needs={"supervision": _BOXES},
        ge=0,
    )
    projection_weight: float = option(
        1.0, "of the loss that ties a mask to its box (BoxLevelSet: 3)", needs={"supervision": _BOXES}, ge=0
    )
    pairwise_weight: float = option(
        1.0, "of the colour loss, or whatever shapes a mask (BBTP: 0.05)", needs={"supervision": _BOXES}, ge=0
    )
    pairwise_warmup: float = option(
        0.5,
        "share of the training over which the colour loss rises, or whatever shapes a mask",
        needs={"supervision": _BOXES},
        ge=0,
        le=1,
    )

    @property
    def network(self) -> tuple[str | int, ...]:
        return (self.method, self.backbone, self.channels, self.convs)

    def detector_classes(self, categories: int) -> int:
        """How many classes the detector tells apart on boxes of so many categories."""
        return 1 if self.class_agnostic else categories


class BoxTeacherConfig(BoxInstConfig):
    """BoxInst's options and those of the moving average and its pseudo masks."""

    method: str = method_option("boxteacher")
    supervision: Literal["boxes", "mixed"] = option(
        "boxes", "boxes alone; mixed: true masks where there are some, boxes elsewhere"
    )
    teacher_from: float = option(0.5, "share of the training before the moving average teaches", ge=0, le=1)
    teacher_warmup: float = option(
        0.2, "share of the training over which the losses with the average's masks rise", ge=0, le=1
    )
    pixel_weight: float = option(0.5, "of the dice with the moving average's masks", ge=0)
    affinity_weight: float = option(0.1, "of the affinity loss with the moving average's masks", ge=0)
    ema: float = option(0.999, "momentum of the moving average: the largest", ge=0, lt=1)
    ema_ramp: float = option(
        10.0, "before ema is reached, the average goes back over one part in so many of the steps", ge=1
    )
    ema_buffers: bool = option(True, "average BatchNorm's statistics too (BoxTeacher's code does not)", group="paper")
    min_iou: float = option(0.5, "least IoU of boxes: of a candidate's with the given one", ge=0, le=1)
    # BoxSeg finds its candidates without these two, unless its ranking is BoxTeacher's
    detections: int = option(
        100, "most objects of an image: detections of the average", needs={"ranking": ("bpma",)}, ge=1
    )
    mcs: Literal["code", "paper"] = option(
        "code", "confidence that weighs a detection's mask", group="paper", needs={"ranking": ("bpma",)}
    )
    strong: bool = option(True, "the student sees other colours than the average")
    blur: bool = option(
        False, "and a blurred image half of the time, as on long schedules", group="paper", needs={"strong": ()}
    )
    copy_paste: bool = option(False, "paste objects with good masks over others, their peers in other images")
    copy_paste_probability: float = option(
        0.5, "probability of a paste: per image", needs={"copy_paste": ()}, ge=0, le=1
    )
    tutor: Literal["quality", "likely", "random"] = option(
        "quality",
        "which object is pasted: the best of those that are good and alone; a good one, by its quality to the third "
        "(SIM); or any with a mask",
        group="paper",
        needs={"copy_paste": ()},
    )
    place: Literal["overlapping", "random"] = option(
        "overlapping",
        "where it is pasted: over an object of its class, or anywhere",
        group="paper",
        needs={"copy_paste": ()},
    )
    learner: Literal["lowest", "any"] = option(
        "lowest",
        "over which object: that with the worst mask, or any (BoxSeg's code)",
        group="paper",
        needs={"copy_paste": (), "place": ("overlapping",)},
    )
    pastes: int = option(1, "objects pasted on an image, at most", group="paper", needs={"copy_paste": ()}, ge=1, le=10)
    min_tutor: float = option(
        0.02,
        "least side of a square as large as a pasted object, in short sides of the image",
        needs={"copy_paste": ()},
        ge=0,
        le=1,
    )
    result: Literal["average", "student"] = option("average", "which network the training gives", group="paper")


class BoxSegConfig(BoxTeacherConfig):
    """BoxTeacher's options and those of the Quality-Aware Module."""

    method: str = method_option("boxseg")
    classification: Literal["focal", "varifocal"] = option("varifocal", "class loss", group="paper")
    copy_paste: bool = option(True, "paste objects with good masks over others, their peers in other images")
    ranking: Literal["bqr", "bpma", "positives"] = option(
        "bqr",
        "which candidates: by box quality without NMS; as boxteacher does; or the locations that learn the object, as "
        "SIM's",
        group="paper",
    )
    iou_sharpness: float = option(
        5.0,
        "a location's mask weighs exp(this times the IoU of its box); SIM's code: 0",
        group="paper",
        needs={"ranking": ("positives",)},
        ge=0,
    )
    per_box: int = option(
        0,
        "masks per given box: candidates; 0: 2 to 10 by the box's area; BoxSeg's code: 20",
        group="paper",
        needs={"ranking": ("bqr",)},
        ge=0,
    )
    fusion: Literal["qmf", "vote", "best"] = option(
        "qmf", "candidates to one mask; vote: BoxSeg's code", group="paper", needs={"ranking": ("bqr",)}
    )
    score: Literal["mqs", "mcs", "mcs-paper", "code"] = option(
        "mqs", "how a fused mask is scored", group="paper", needs={"ranking": ("bqr",)}
    )
    tau_box: float = option(
        0.1, "candidates need a larger box score", group="paper", needs={"ranking": ("bqr",)}, ge=0, lt=1
    )
    tau_pixel: float = option(
        0.5, "pixels need a larger fused probability", group="paper", needs={"ranking": ("bqr",)}, ge=0, lt=1
    )
    box_score: Literal["iacs", "sqrt_iacs_ctr", "box_iou"] = option(
        "iacs", "box score; sqrt_iacs_ctr: BoxSeg's code; box_iou: that with the given box, which iacs has to guess",
        group="paper", needs={"ranking": ("bqr",)},
    )  # fmt: skip


_MAPPED = {"instance_share": Values("below 1", lambda share: share < 1)}  # what looks at the semantic map


class SimConfig(BoxSegConfig):
    """BoxSeg's options and those of the semantic map; the defaults are SIM's, without the Quality-Aware Module."""

    method: str = method_option("sim")
    least_similarity: float = option(
        0.1,
        "least colour similarity of neighbours that should agree, times that of their features",
        needs=_PAIRS,
        ge=0,
        le=1,
    )
    alike_features: bool = option(
        True,
        "neighbours that should agree are alike in the mask branch's features, too, and not in colour alone",
        group="paper",
        needs=_PAIRS,
    )
    classification: Literal["focal", "varifocal"] = option("focal", "class loss", group="paper")
    affinity_weight: float = option(0.0, "of the affinity loss with the moving average's masks", ge=0)
    ranking: Literal["bqr", "bpma", "positives"] = option(
        "positives",
        "which candidates: the locations that learn the object; by box quality without NMS, BoxSeg's Quality-Aware "
        "Module; or as boxteacher does",
        group="paper",
    )
    prototypes: int = option(10, "prototypes of every class", group="paper", needs=_MAPPED, ge=1)
    prototype_momentum: float = option(
        0.999, "momentum of the prototypes: the largest; see ema_ramp", group="paper", needs=_MAPPED, ge=0, lt=1
    )
    sinkhorn_epsilon: float = option(
        0.05, "how soft the assignment of cells to prototypes is", group="paper", needs=_MAPPED, gt=0
    )
    sinkhorn_iterations: int = option(3, "iterations that balance the assignment", group="paper", needs=_MAPPED, ge=1)
    map_temperature: float = option(
        1.0, "of the semantic map's cosines, as in SIM's code (its paper: 0.1)", group="paper", needs=_MAPPED, gt=0
    )
    instance_share: float = option(
        0.5, "of the moving average's mask in a pseudo mask; the rest is the semantic map's", group="paper", ge=0, le=1
    )
    copy_paste: bool = option(True, "paste objects with good masks over others, in other images")
    tutor: Literal["quality", "likely", "random"] = option(
        "likely",
        "which object is pasted: a good one, by its quality to the third; the best of those that are good and alone; "
        "or any with a mask",
        group="paper",
        needs={"copy_paste": ()},
    )
    place: Literal["overlapping", "random"] = option(
        "random",
        "where it is pasted: anywhere, or over an object of its class",
        group="paper",
        needs={"copy_paste": ()},
    )
    pastes: int = option(3, "objects pasted on an image, at most", group="paper", needs={"copy_paste": ()}, ge=1, le=10)
    paste_weight: float = option(
        1.0, "of the loss with the masks of pasted objects, in place of pixel_weight", needs={"copy_paste": ()}, ge=0
    )
