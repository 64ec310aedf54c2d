"""`export-model`: a trained student as an ONNX file or a torch.export program."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.options.tools import ExportModelConfig


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
        summary |= {"onnx": str(config.onnx), "largest_difference": export_onnx(trained, config.onnx, image_px=side)}
    if config.torch_export is not None:
        export_torch(trained, config.torch_export, image_px=side)
        summary |= {"torch_export": str(config.torch_export)}
    return summary


def export_text(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = []
    if "onnx" in summary:
        lines.append(f"{summary['onnx']}: differs from torch by at most {summary['largest_difference']:.1e}")
    if "torch_export" in summary:
        lines.append(summary["torch_export"])
    return "\n".join(lines)
