"""An encoder by name with its weights, for detectors and for SISeg."""

from pathlib import Path
from typing import TypeVar

from pseudolabel.encoders.bodies import dense_body, pyramid_body
from pseudolabel.encoders.encoder import DenseEncoder, Encoder
from pseudolabel.encoders.from_onnx import load_segmenter_encoder
from pseudolabel.encoders.from_smp import load_smp_encoder
from pseudolabel.encoders.resolve import HUB, NONE, SEGMENTER, ResolvedBackbone, find_on_hub, resolve_backbone_weights
from pseudolabel.weights import load_weights, read_state_dict

EncoderT = TypeVar("EncoderT", bound=Encoder)


def build_encoder(name: str, weights: str) -> Encoder:
    """The encoder of that name at strides 8, 16 and 32; see `resolve` for what name and weights may be.

    Raises:
        ConfigError: no such encoder, or one without stages at these strides.
        InputError: the weights lack parameters, have others, or cannot be had.
    """
    wanted = resolve_backbone_weights(name, weights)
    return _filled(Encoder(pyramid_body(wanted.name, _hub_file(wanted))), wanted.weights)


def build_dense_encoder(name: str, weights: str) -> DenseEncoder:
    """The encoder of that name at strides 4, 4, 8, 16 and 16, frozen unless it is `tiny`; as `build_encoder`."""
    wanted = resolve_backbone_weights(name, weights)
    body = dense_body(wanted.name, _hub_file(wanted))
    return _filled(DenseEncoder(body, frozen=wanted.name != "tiny"), wanted.weights)


def _hub_file(wanted: ResolvedBackbone) -> Path | None:
    return find_on_hub(wanted.name, fetch=False) if wanted.weights == HUB else None


def _filled(encoder: EncoderT, weights: str) -> EncoderT:
    """What a segmenter's file lacks of the encoder's last layers starts from chance."""
    if weights.startswith(SEGMENTER):
        load_smp_encoder(encoder, weights)
    elif weights.endswith(".onnx"):
        load_segmenter_encoder(encoder, Path(weights))
    elif weights not in (HUB, NONE):
        load_weights(encoder.body, read_state_dict(Path(weights)), where=weights, partly=True)
    return encoder
