"""A trained model of SISeg: made, written, read, and asked about one image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from pseudolabel.config import parse_config
from pseudolabel.encoders.build import build_dense_encoder
from pseudolabel.encoders.resolve import NONE, resolve_backbone_weights
from pseudolabel.errors import ConfigError
from pseudolabel.siseg.config import SisegCard
from pseudolabel.siseg.instances import FieldMaps
from pseudolabel.siseg.network import SisegNetwork
from pseudolabel.siseg.views import resize_image, view_size
from pseudolabel.training.checkpoint import read_config, save_model
from pseudolabel.weights import load_weights_file


def new_network(card: SisegCard, backbone_weights: str) -> tuple[SisegNetwork, SisegCard]:
    """A network to train and its card, which builds the network again without what its weights came from.

    Raises:
        ConfigError: no such backbone, weights for one that brings its own, or none for one that is not trained.
        InputError: its weights cannot be read.
    """
    wanted = resolve_backbone_weights(card.backbone, backbone_weights)
    card = card.model_copy(update={"backbone": wanted.name})
    network = build_network(card, wanted.weights)
    if network.backbone.frozen and wanted.weights == NONE:
        raise ConfigError(
            f"backbone {wanted.name!r} does not learn with SISeg, so it needs weights: "
            "--backbone-weights FILE, hub or hub-download"
        )
    return network, card


def build_network(card: SisegCard, backbone_weights: str) -> SisegNetwork:
    """A network with untrained heads on the named backbone.

    Raises:
        ConfigError: no such backbone.
        InputError: its weights cannot be read.
    """
    return SisegNetwork(build_dense_encoder(card.backbone, backbone_weights), width=card.head_width)


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
    load_weights_file(network, weights)
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
