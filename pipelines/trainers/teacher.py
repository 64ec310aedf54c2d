"""`train-teacher`: a mask teacher, learned from the run's boxes alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pseudolabel.config import Config, option
from pseudolabel.encoders.resolve import BACKBONE_HELP, WEIGHTS_HELP, backbone_files
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.registry import Registry

# name -> function (run, config, device) -> path of the weights
METHODS = Registry(
    "teacher method",
    {
        "mal": "pseudolabel.pipelines.trainers.mal:train_mal",
        "boxinst": "pseudolabel.pipelines.trainers.boxes:train_boxes",
        "boxteacher": "pseudolabel.pipelines.trainers.boxes:train_boxes",
        "boxseg": "pseudolabel.pipelines.trainers.boxes:train_boxes",
    },
)


FAMILY = ("boxinst", "boxteacher", "boxseg")  # CondInst with masks learned from boxes: whole images
TAUGHT = ("boxteacher", "boxseg")  # those of them that a moving average teaches
AVERAGED = (*TAUGHT, "boxinst+")  # those of them that have a moving average

# where a method's own default is not the one that its field shows
OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {
        "epochs": 24.0,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "encoder_learning_rate": 1e-4,
        "tau": 0.3,
        "ema": 0.999,
        "copy_paste": False,
    }
    for name in FAMILY
}
for name in TAUGHT:
    OWN_DEFAULTS[name] |= {"teacher_from": 0.5}
OWN_DEFAULTS["boxseg"] |= {"copy_paste": True, "classification": "varifocal"}


def _of(methods: Iterable[str], default: Any, help: str, **constraints: Any) -> Any:
    """An option of these methods alone, which says so; `boxinst+` is boxinst with copy_paste."""
    names = ", ".join(name.replace("+", " with copy_paste") for name in methods)
    made = option(default, f"{help} ({names})", **constraints)
    made.json_schema_extra["methods"] = tuple(methods)
    return made


class TrainTeacherConfig(Config):
    """Options of `train-teacher`. What is not said takes the method's own default; an option of another method that is
    set to anything but its default is refused.
    """

    method: str = option("mal", "which teacher: " + ", ".join(METHODS))
    copy_paste: bool = _of(
        ["mal", *FAMILY],
        True,
        "paste objects with good masks over others (boxinst, boxteacher: off); mal from round 2 on",
    )
    backbone: str = option("mobilenet_v2", BACKBONE_HELP)
    backbone_weights: str = option("hub", WEIGHTS_HELP)
    epochs: float = option(8.0, "how often every object (mal) or image (the others: 24) is seen", gt=0)
    batch_size: int = option(8, "objects (mal) or images (the others: 2) per step and process", ge=1)
    learning_rate: float = option(2e-3, "of the new layers (all but mal: 0.001)", gt=0)
    encoder_learning_rate: float = option(4e-4, "of the encoder (all but mal: 0.0001)", ge=0)
    tau: float = option(0.1, "least colour similarity of neighbours that should agree (all but mal: 0.3)", ge=0, le=1)
    pairwise_weight: float = option(1.0, "of the colour loss", ge=0)
    teacher_from: float = _of(
        ["mal", *TAUGHT], 0.4, "share of the training before the moving average teaches, 0.5 but for mal", ge=0, le=1
    )
    pixel_weight: float = _of(["mal", *TAUGHT], 0.5, "of the loss with the moving average's masks", ge=0)
    affinity_weight: float = _of(["mal", *TAUGHT], 0.1, "of the affinity loss with the moving average's masks", ge=0)
    ema: float = _of(["mal", *AVERAGED], 0.995, "largest momentum of the moving average, 0.999 but for mal", ge=0, lt=1)
    field_weight: float = _of(
        ["mal"], 1.0, "of like-coloured neighbours in the mean field over the moving average's masks", ge=0
    )
    rounds: int = _of(["mal"], 1, "trainings; each but the first learns also from the masks of the one before", ge=1)
    guides: list[str] = _of(
        ["mal"], [], "candidate tables, such as semantic, that are fused with the masks between two rounds"
    )
    guided_from: int = _of(["mal"], 2, "round in which the guides speak first; in round 1 they speak alone", ge=1)
    label_weight: float = _of(["mal"], 2.0, "of the loss with the masks of the round before", ge=0)
    crop_px: int = _of(["mal"], 128, "side of the crops, a multiple of 32", ge=32, multiple_of=32)
    last_crop_px: int = _of(
        ["mal"], 256, "side of the crops in the last of several rounds, to which they grow from round to round",
        ge=32, multiple_of=32,
    )  # fmt: skip
    freeze: bool = option(True, "keep the encoder's layers up to stride 4 as they are (all but mal: if pretrained)")
    max_objects: int = _of(["mal"], 100_000, "train on this many objects at most, drawn by the seed", ge=1)
    image_px: int = _of(FAMILY, 640, "short side of the images that are seen, the long one twice that at most", ge=32)
    window_px: int = _of(
        FAMILY,
        0,
        "side of the random part of every image that a step sees, a multiple of 32; 0: all of it",
        ge=0,
        multiple_of=32,
    )
    finest_px: float = _of(
        FAMILY,
        64.0,
        "half-size of objects, in pixels of what the network sees, up to which its finest level learns "
        "them; less where objects are small",
        gt=0,
    )
    channels: int = _of(FAMILY, 256, "width of the pyramid and of the towers", ge=8)
    convs: int = _of(FAMILY, 4, "convolutions per tower", ge=1)
    mask_branch_channels: int = _of(FAMILY, 128, "width of the mask branch", ge=8)
    mask_branch_norm: Literal["batch", "group"] = _of(
        FAMILY, "group", "normalisation of the mask branch; batch, as published, wants large batches"
    )
    mask_features: int = _of(FAMILY, 16, "channels that the mask branch gives (CondInst's paper: 8)", ge=1)
    mask_head_channels: int = _of(FAMILY, 8, "width of the dynamic mask head", ge=1)
    supervision: Literal["boxes", "masks", "mixed"] = _of(
        FAMILY, "boxes", "boxes alone; true masks, as a reference; mixed: masks where there are some, boxes elsewhere"
    )
    mask_classes: list[str] = _of(FAMILY, [], "with mixed: use the masks of these classes alone; repeat for more")
    classification: Literal["focal", "varifocal"] = _of(FAMILY, "focal", "class loss; boxseg: varifocal")
    varifocal_alpha: float = _of(FAMILY, 0.75, "weight of negatives in it (BoxSeg's code: 0.25)", ge=0)
    positives: int = _of(FAMILY, 64, "locations per image that train the mask head", ge=1)
    theta: float = _of(FAMILY, 2.0, "scale of colour distances", gt=0)
    size: int = _of(FAMILY, 3, "side of the neighbourhood, in cells of 4 px", ge=3)
    dilation: int = _of(FAMILY, 2, "distance of the neighbours, in cells of 4 px", ge=1)
    bottom_px: int = _of(
        FAMILY, 10, "rows at an image's bottom whose colours are not trusted, as COCO's boxes end there", ge=0
    )
    projection_weight: float = _of(FAMILY, 1.0, "of the projection loss", ge=0)
    pairwise_warmup: float = _of(FAMILY, 0.5, "share of the training over which the colour loss rises", ge=0, le=1)
    flip: bool = _of(FAMILY, True, "mirror half of the images")
    copy_paste_probability: float = _of(["mal", *AVERAGED], 0.5, "of a paste per image, mal: per object", ge=0, le=1)
    min_tutor_px: int = _of(AVERAGED, 300, "least area of a pasted object, in pixels of the network's input", ge=1)
    teacher_warmup: float = _of(
        TAUGHT, 0.2, "share of the training over which the losses with the average's masks rise", ge=0, le=1
    )
    ema_ramp: float = _of(
        AVERAGED, 10.0, "before ema is reached, the average goes back over one part in so many of the steps", ge=1
    )
    ema_buffers: bool = _of(AVERAGED, True, "average BatchNorm's statistics too (the released code does not)")
    min_iou: float = _of(AVERAGED, 0.5, "a candidate's box overlaps the given one by this IoU", ge=0, le=1)
    detections: int = _of(AVERAGED, 100, "detections of the average per image, where it makes some", ge=1)
    mcs: Literal["code", "paper"] = _of(AVERAGED, "code", "confidence that weighs a detection's mask")
    strong: bool = _of(TAUGHT, True, "the student sees other colours than the average")
    blur: bool = _of(TAUGHT, False, "and a blurred image half of the time, as on long schedules")
    ranking: Literal["bqr", "bpma"] = _of(["boxseg"], "bqr", "by box quality without NMS, or as boxteacher does")
    candidates: int = _of(["boxseg"], 0, "candidates per box; 0: 2 to 10 by the box's area; BoxSeg's code: 20", ge=0)
    fusion: Literal["qmf", "vote", "best"] = _of(["boxseg"], "qmf", "candidates to one mask; vote: BoxSeg's code")
    score: Literal["mqs", "mcs", "mcs-paper", "code"] = _of(["boxseg"], "mqs", "how a fused mask is scored")
    tau_box: float = _of(["boxseg"], 0.1, "a candidate's box score is above this", ge=0, lt=1)
    tau_pixel: float = _of(["boxseg"], 0.5, "a pixel's probability is above this", ge=0, lt=1)
    box_score: Literal["iacs", "sqrt_iacs_ctr"] = _of(["boxseg"], "iacs", "box score; sqrt_iacs_ctr: BoxSeg's code")
    seed: int = option(0, "of weights, order and augmentation", ge=0)
    precision: Literal["fp32", "bf16"] = option("fp32", "arithmetic of the forward pass")
    devices: int = option(1, "processes, one per GPU", ge=1)
    nodes: int = option(1, "machines", ge=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False, pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    loader_workers: int = option(0, "processes that read samples", changes_result=False, ge=0)
    threads: int = option(0, "CPU threads; 0 = torch's choice", changes_result=False, ge=0)
    checkpoint_every: int = option(200, "steps between checkpoints", changes_result=False, ge=1)

    @model_validator(mode="after")
    def _guides_need_rounds(self) -> "TrainTeacherConfig":
        if self.guides and self.rounds < self.guided_from:
            raise PydanticCustomError(
                "guides", f"guides speak from round {self.guided_from} on: raise rounds, or lower guided_from"
            )
        for name, speaks, wanted in (
            ("guided_from", bool(self.guides), "guides"),
            ("last_crop_px", self.rounds > 1, "rounds of 2 or more"),
            (
                "copy_paste_probability",
                self.method != "mal" or self._pastes_crops(),
                "copy_paste and masks to paste by",
            ),
        ):
            if not speaks and getattr(self, name) != self.default_of(name, self.method):
                raise PydanticCustomError("no_effect", f"{name} does nothing without {wanted}")
        return self

    def _pastes_crops(self) -> bool:
        """Whether mal has masks to cut objects out by: those of the round before, or of guides that speak at once."""
        return self.copy_paste and (self.rounds > 1 or bool(self.guides))

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, values: Any) -> Any:
        """What is not said, as the method has it."""
        return {**OWN_DEFAULTS.get(values.get("method", "mal"), {}), **values} if isinstance(values, dict) else values

    @field_validator("*")
    @classmethod
    def _known_to_the_method(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what the method does not look at."""
        method, name = str(info.data.get("method")), str(info.field_name)
        methods = methods_of(name)
        if not methods or method not in METHODS or value == cls.default_of(name, method):
            return value
        pasting = info.data.get("copy_paste") and f"{method}+" in methods
        if method not in methods and not pasting:
            raise PydanticCustomError("not_of_method", f"does nothing with {method}; an option of {', '.join(methods)}")
        return value

    @classmethod
    def default_of(cls, name: str, method: str) -> Any:
        """The value of an option when nobody says anything."""
        return OWN_DEFAULTS.get(method, {}).get(name, cls.model_fields[name].default)

    def tables(self) -> tuple[str, ...]:
        """Tables that decide the result."""
        return ("manifest", *(f"candidates/{name}" for name in self.guides))

    def weight_files(self) -> dict[str, Path]:
        """Files that decide the result."""
        return backbone_files(self.backbone, self.backbone_weights)


def methods_of(name: str) -> tuple[str, ...]:
    """The methods that look at an option, `boxinst+` for boxinst with copy_paste; empty where all do."""
    extra = TrainTeacherConfig.model_fields[name].json_schema_extra  # JSON to pydantic; `_of` wrote a tuple of names
    return tuple(extra.get("methods", ())) if isinstance(extra, dict) else ()  # type: ignore[arg-type]


def train_teacher(run: RunPaths, config: TrainTeacherConfig) -> Path:
    """Train and write `models/teacher.safetensors` with its config; a stopped training goes on from its checkpoint.

    Raises:
        ConfigError: no such method, or options that do not go together.
        InputError: the run has no box to learn from.
        NonFiniteLossError: a loss was NaN or infinite; names the images.
        SignalStopError: a signal ended the training between two steps.
    """
    import torch

    from pseudolabel.pipelines.work.device import resolve_device

    train = METHODS.load(config.method)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    weights: Path = train(run, config, resolve_device(config.device, stage_uses_gpu=True))
    return weights
