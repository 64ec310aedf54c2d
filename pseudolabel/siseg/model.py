"""A trained model of SISeg: made, written, read, and asked about one image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from pseudolabel.config import Config, option, parse_config
from pseudolabel.encoders.from_smp import PREFIX, Normalisation, read_encoder
from pseudolabel.encoders.stride16 import build_backbone
from pseudolabel.errors import ConfigError
from pseudolabel.siseg.instances import FieldMaps
from pseudolabel.siseg.network import SisegNetwork
from pseudolabel.siseg.views import resize_image, view_size
from pseudolabel.training.checkpoint import load_weights, read_config, save_model
from pseudolabel.weights import load_weights as load_state


class SisegCard(Config):
    """What stands beside the weights: how to build the network and how to feed it."""

    backbone: str = option(..., "name of the encoder")
    head_width: int = option(256, "channels of the displacement head")
    scale: float = option(1.0, "images are resized by this factor", gt=0)
    normalisation: Normalisation | None = option(None, "mean and std of inputs in [0, 1], if not the encoder's usual")


def new_network(card: SisegCard, backbone_weights: str) -> tuple[SisegNetwork, SisegCard]:
    """A network to train and its card; the backbone `smp:DIR` becomes the encoder of that segmenter, with its weights.

    Raises:
        ConfigError: no such backbone, or weights for one that brings its own.
        InputError: its weights cannot be read.
    """
    if not card.backbone.startswith(PREFIX):
        return build_network(card, backbone_weights), card
    if backbone_weights not in ("hub", "none"):
        raise ConfigError(f"--backbone {card.backbone} brings its own weights: leave out --backbone-weights")
    encoder = read_encoder(card.backbone)
    card = card.model_copy(update={"backbone": encoder.name, "normalisation": encoder.normalisation})
    network = build_network(card, "none")
    load_state(network.backbone.body, encoder.state, where=f"smp encoder {encoder.name}")
    return network, card


def build_network(card: SisegCard, backbone_weights: str) -> SisegNetwork:
    """A network with untrained heads on the named backbone.

    Raises:
        ConfigError: no such backbone.
        InputError: its weights cannot be read.
    """
    return SisegNetwork(build_backbone(card.backbone, backbone_weights, card.normalisation), width=card.head_width)


def save_siseg(weights: Path, network: SisegNetwork, card: SisegCard, about: dict[str, Any]) -> str:
    """Write `weights` (backbone included) with the card and what else is to be known about it; the weights' sha256."""
    return save_model(weights, network.state_dict(), {"model": card.model_dump(mode="json"), **about})


def load_siseg(weights: Path, *, device: str = "cpu") -> tuple[SisegNetwork, SisegCard]:
    """A trained network in evaluation mode.

    Raises:
        InputError: missing or damaged files, or those of another model.
        ConfigError: the card cannot be read.
    """
    card = parse_config(
        SisegCard, read_config(weights).get("model", {}), where=f"{weights.with_suffix('.yaml')}: model"
    )
    network = build_network(card, "none")
    load_weights(network, weights)
    return network.to(device).eval(), card


@torch.no_grad()
def predict_fields(network: SisegNetwork, image: UInt8[np.ndarray, "H W 3"], *, scale: float, flip: bool) -> FieldMaps:
    """Displacement of the image, and its boundary; with `flip` the boundary's logits are averaged with the mirror's.

    Source: IRNet, which takes the displacement from the unflipped image alone.
    """
    height, width = image.shape[:2]
    pixels = resize_image(image, view_size((height, width), scale)).float()
    views = torch.stack([pixels, pixels.flip(-1)]) if flip else pixels[None]
    fields = network(views.to(network.mean_displacement.device))
    logits = fields.boundary_logits[0]
    if flip:
        logits = (logits + fields.boundary_logits[1].flip(-1)) / 2
    return FieldMaps(fields.displacement[0].float().cpu().numpy(), logits.float().sigmoid().cpu().numpy())
