"""torchvision's segmentation models by name, with weights from a file."""

import torch
from torchvision.models import get_model, list_models
from torchvision.models import segmentation as segmentation_models

from pseudolabel.errors import ConfigError
from pseudolabel.registry import did_you_mean
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import find_card
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.torch_network import TorchNetwork
from pseudolabel.weights import StateDict, load_weights, read_state_dict


def open_torchvision(where: str, options: SegmenterOptions) -> NetworkSegmenter:
    """The segmenter of an architecture's name and `options.weights`; the card stands beside the weights.

    Raises:
        ConfigError: an unknown name, or no weights.
    """
    known = list_models(module=segmentation_models)
    if where not in known:
        raise ConfigError(f"torchvision has no segmentation model {where!r}{did_you_mean(where, known)}")
    if options.weights is None:
        raise ConfigError(f"torchvision:{where} needs --weights FILE, a state dict (.safetensors or .pt)")
    card = find_card(options.weights, options)
    state = read_state_dict(options.weights)
    model = build_model(where, state, num_classes=len(card.classes))
    load_weights(model, state, where=str(options.weights))
    network = TorchNetwork(model, device=options.device)
    return NetworkSegmenter(network, card, batch_size=options.batch_size, long_side=options.long_side)


def build_model(name: str, state: StateDict, *, num_classes: int) -> torch.nn.Module:
    """The architecture with random weights, with an auxiliary head where the state dict has one."""
    has_auxiliary = any(key.startswith("aux_classifier.") for key in state)
    extra = {"aux_loss": True} if has_auxiliary else {}
    model: torch.nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **extra)
    return model
