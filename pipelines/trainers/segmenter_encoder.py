"""`--backbone-weights auto`: an encoder begins as that of the run's own segmenter, where it is the same network."""

import logging
from pathlib import Path

from pseudolabel.encoders.resolve import AUTO, HUB, NONE, SEGMENTER, resolve_backbone_weights
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.training.config import TrainConfig

_LOG = logging.getLogger(__name__)
_ONNX = "onnx:"


def with_settled_weights(run: RunPaths, name: str, config: TrainConfig) -> TrainConfig:
    """The config with `auto` replaced by the run's segmenter, or by `hub`; the choice is told.

    Args:
        name: of the training command, for the line that tells it.

    Raises:
        ConfigError: there is no such backbone.
    """
    if config.backbone_weights != AUTO or config.backbone.startswith(SEGMENTER):
        return config
    resolve_backbone_weights(config.backbone, NONE)
    weights, problem = lent_weights(run, config.backbone)
    if weights is None:
        if problem:
            _LOG.info("%s: the run's segmenter cannot lend its encoder (%s)", name, problem)
        return config.model_copy(update={"backbone_weights": HUB})
    _LOG.info("%s: %s begins as the encoder of %s; --backbone-weights says otherwise", name, config.backbone, weights)
    return config.model_copy(update={"backbone_weights": weights})


def lent_weights(run: RunPaths, backbone: str) -> tuple[str | None, str]:
    """What `--backbone-weights` would say to begin as the run's segmenter, or None and why its encoder does not fit.

    Raises:
        DamagedPartError: the config of `infer-semantic` is damaged.
    """
    weights = _weights_of_segmenter(run)
    problem = _misfit(backbone, weights) if weights else None
    return (None, problem) if problem else (weights, "")


def _weights_of_segmenter(run: RunPaths) -> str | None:
    """What `--backbone-weights` would say: the ONNX file or smp:DIR of `infer-semantic`, if it is here."""
    saved, damaged = saved_configs(run)
    models = [str(one.config["model"]) for one in saved if one.stage == "infer-semantic"]
    if not models:
        if damaged:
            raise damaged[0]
        return None
    model = models[0]
    if model.startswith(_ONNX) and Path(model.removeprefix(_ONNX)).is_file():
        return model.removeprefix(_ONNX)
    return model if model.startswith(SEGMENTER) else None


def _misfit(backbone: str, weights: str) -> str | None:
    """Why the segmenter's encoder is not this backbone, None where it is."""
    from pseudolabel.encoders.build import build_encoder  # imports torch

    try:
        build_encoder(backbone, weights)
    except (ConfigError, InputError) as error:
        return str(error)
    return None
