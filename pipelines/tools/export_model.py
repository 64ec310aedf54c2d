"""`export-model`: a trained student as an ONNX file or a torch.export program."""

from pathlib import Path
from typing import Any

from pseudolabel.config import Config, option
from pseudolabel.errors import ConfigError


class ExportModelConfig(Config):
    """Options of `export-model`."""

    onnx: Path | None = option(None, "ONNX file to write")
    torch_export: Path | None = option(None, ".pt2 file of torch.export to write")
    image_px: int = option(0, "side of the square input, a multiple of 32; 0 = as in training", ge=0)


def export_model(weights: Path, config: ExportModelConfig) -> dict[str, Any]:
    """Write what is asked for, each with a YAML file that says what goes in and what comes out.

    Raises:
        ConfigError: nothing is asked for, or this student cannot be exported.
        MachineError: ONNX Runtime's outputs are not torch's.
    """
    from pseudolabel.students.export import export_onnx, export_torch
    from pseudolabel.students.save import load_student

    if config.onnx is None and config.torch_export is None:
        raise ConfigError("export-model: say --onnx FILE, --torch-export FILE, or both")
    trained = load_student(weights)
    side = config.image_px or trained.image_px
    summary: dict[str, Any] = {"stage": "export-model", "image_px": side}
    if config.onnx is not None:
        config.onnx.parent.mkdir(parents=True, exist_ok=True)
        summary |= {"onnx": str(config.onnx), "largest_difference": export_onnx(trained, config.onnx, image_px=side)}
    if config.torch_export is not None:
        config.torch_export.parent.mkdir(parents=True, exist_ok=True)
        export_torch(trained, config.torch_export, image_px=side)
        summary |= {"torch_export": str(config.torch_export)}
    return summary
