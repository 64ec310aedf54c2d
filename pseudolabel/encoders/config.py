"""Options of an encoder, declared once for all networks above it; imports no torch."""

from pathlib import Path

from pseudolabel.config import Config, option
from pseudolabel.encoders.resolve import BACKBONE_HELP, WEIGHTS_HELP, backbone_files


class EncoderConfig(Config):
    """An encoder by name."""

    backbone: str = option("mobilenet_v2", BACKBONE_HELP, group="main")


class PretrainedConfig(EncoderConfig):
    """An encoder by name, and where its weights come from."""

    backbone_weights: str = option("auto", WEIGHTS_HELP, group="main")

    def weight_files(self) -> dict[str, Path]:
        """Files that decide the result, by a name for the message."""
        return backbone_files(self.backbone, self.backbone_weights)
