"""`train-teacher`: a mask teacher, learned from the run's boxes alone."""

from pathlib import Path
from typing import Literal

from pseudolabel.config import Config, option
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.registry import Registry

# name -> function (run, config, device) -> path of the weights
METHODS = Registry(
    "teacher method",
    {
        "mal": "pseudolabel.pipelines.train_mal:train_mal",
        "boxinst": "pseudolabel.pipelines.train_boxes:train_boxes",
        "boxteacher": "pseudolabel.pipelines.train_boxes:train_boxes",
        "boxseg": "pseudolabel.pipelines.train_boxes:train_boxes",
    },
)


class TrainTeacherConfig(Config):
    """Options of `train-teacher`; what a method leaves open here, its own defaults say."""

    method: str = option("mal", "which teacher: " + ", ".join(METHODS))
    backbone: str = option("mobilenet_v2", "encoder by name: mobilenet_v2, resnet50, resnet101, swin_tiny, tiny, ...")
    backbone_weights: str = option("hub", "a file, hub (the hub's cache), or none to start from chance")
    epochs: float = option(16.0, "how often every object (mal) or image (the others) is seen", gt=0)
    batch_size: int = option(8, "objects (mal) or images (the others) per step and process", ge=1)
    crop_px: int = option(128, "side of the crops, a multiple of 32", ge=32)
    image_px: int = option(640, "short side of the images that boxinst, boxteacher and boxseg see", ge=32)
    channels: int = option(256, "width of the pyramid of boxinst, boxteacher and boxseg", ge=8)
    learning_rate: float = option(2e-3, "of the new layers", gt=0)
    encoder_learning_rate: float = option(4e-4, "of the encoder", ge=0)
    freeze: bool = option(True, "keep the encoder's layers up to stride 4 as pretrained")
    tau: float = option(0.1, "least colour similarity of neighbours that should agree", ge=0, le=1)
    pairwise_weight: float = option(1.0, "of the colour loss", ge=0)
    teacher_from: float = option(0.4, "share of the training before the moving average teaches", ge=0, le=1)
    pixel_weight: float = option(0.5, "of the loss with the moving average's masks", ge=0)
    affinity_weight: float = option(0.1, "of the affinity loss with the moving average's masks", ge=0)
    ema: float = option(0.995, "momentum of the moving average", ge=0, lt=1)
    max_objects: int = option(100_000, "train on this many objects at most, drawn by the seed", ge=1)
    seed: int = option(0, "of weights, order and augmentation", ge=0)
    precision: Literal["fp32", "bf16"] = option("fp32", "arithmetic of the forward pass")
    devices: int = option(1, "processes, one per GPU", ge=1)
    nodes: int = option(1, "machines", ge=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False, pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    loader_workers: int = option(0, "processes that read samples", changes_result=False, ge=0)
    threads: int = option(0, "CPU threads; 0 = torch's choice", changes_result=False, ge=0)
    checkpoint_every: int = option(200, "steps between checkpoints", changes_result=False, ge=1)

    def tables(self) -> tuple[str, ...]:
        """Tables that decide the result."""
        return ("manifest",)

    def weight_files(self) -> dict[str, Path]:
        """Files that decide the result."""
        return {} if self.backbone_weights in ("hub", "none") else {"backbone": Path(self.backbone_weights)}


def train_teacher(run: RunPaths, config: TrainTeacherConfig) -> Path:
    """Train and write `models/teacher.safetensors` with its config; a stopped training goes on from its checkpoint.

    Raises:
        ConfigError: no such method, or options that do not go together.
        InputError: the run has no box to learn from.
        NonFiniteLossError: a loss was NaN or infinite; names the images.
        SignalStopError: a signal ended the training between two steps.
    """
    import torch

    from pseudolabel.pipelines.device import resolve_device

    train = METHODS.load(config.method)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)  # early gradients are tiny; without this a step takes up to ten times as long
    try:
        weights: Path = train(run, config, resolve_device(config.device, stage_uses_gpu=True))
    finally:
        torch.set_flush_denormal(False)
    return weights
