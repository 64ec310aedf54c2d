"""Options of `train-student`: those of the student's parts, and of what it learns from; imports no torch."""

from pathlib import Path
from typing import ClassVar, Literal

from pseudolabel.config import option
from pseudolabel.students.config import AugmentConfig, LabelConfig, RecipeConfig, StudentConfig
from pseudolabel.training.config import PresetConfig

_SMALL = {
    "backbone": "mobilenet_v2",
    "width": 64,
    "convs": 2,
    "image_px": 256,
    "epochs": 12.0,
    "learning_rate": 2e-3,
    "encoder_learning_rate": 1e-3,
    "ema": 0.98,
}


class TrainStudentConfig(PresetConfig, RecipeConfig, AugmentConfig, LabelConfig, StudentConfig):
    """Options of `train-student`."""

    PRESETS: ClassVar = {"small": _SMALL}

    learn_from: Path | None = option(None, "COCO file to learn from; default: the run's pseudo labels")
    predict_px: int = option(0, "longer side of an image that the trained student is asked about; 0 = image_px", ge=0)
    validation: Path | None = option(
        None, "COCO file with true masks of other images, for an AP while training", group="main"
    )
    validation_images: Path | None = option(None, "folder of its images; default: the run's", needs={"validation": ()})
    batch_norm: Literal["frozen", "trained", "sync"] = option(
        "frozen", "of the encoder: as pretrained, learned in each process, or over all GPUs together"
    )
    compile: bool = option(
        False, "torch.compile for the parts of fixed shape: slow to start, faster on a GPU", group="machine"
    )

    @property
    def used_px(self) -> int:
        """Longer side of an image in validation and prediction."""
        return self.predict_px or self.image_px

    @property
    def network(self) -> tuple[str | int, ...]:
        return (self.model, self.backbone, self.width, self.convs)

    def tables(self) -> tuple[str, ...]:
        return ("manifest",) if self.learn_from else ("manifest", "pseudo")

    def weight_files(self) -> dict[str, Path]:
        files = {"learn_from": self.learn_from, "validation": self.validation, **super().weight_files()}
        return {name: path for name, path in files.items() if path is not None}
