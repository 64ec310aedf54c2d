"""The files that decide what a crop model answers."""

from collections.abc import Mapping
from pathlib import Path

from pseudolabel.prompted.card import crop_card_path
from pseudolabel.prompted.onnx_files import onnx_files


def crop_files(where: str, card: Path | None) -> Mapping[str, Path]:
    """Model, external weights and card; errors as `onnx_files` and `crop_card_path`."""
    found = crop_card_path(Path(where), card)
    return {**onnx_files(Path(where), "model"), "card": found}
