"""Where a backbone's weights come from, settled before any other work; nothing is fetched unless asked.

What `--backbone-weights` takes: a file (.safetensors, .pt read without code, or the .onnx of a segmenter over the same
backbone, its card beside it), `smp:DIR` (the encoder of a segmenter of segmentation-models-pytorch), `hub` (the
encoder's own ImageNet weights, out of the hub's local cache alone), `hub-download` (the same, fetched where the cache
lacks them), or `none` to start from chance. `auto`, the default, is the encoder of the run's own segmenter where that
is the same network, which a trainer settles first, and else `hub`. `--backbone smp:DIR` is the encoder of that
segmenter with its weights.
"""

from pathlib import Path
from typing import NamedTuple

from pseudolabel.errors import ConfigError, InputError

AUTO, HUB, HUB_DOWNLOAD, NONE = "auto", "hub", "hub-download", "none"
SEGMENTER = "smp:"
BACKBONE_HELP = (
    "tiny, mobilenet_v2, resnet50, swin_tiny or another name of timm, or smp:DIR (a segmenter's own encoder)"
)
WEIGHTS_HELP = (
    "a file (.safetensors, .pt, or a segmenter's .onnx over the same backbone, its card beside it), hub (ImageNet's, "
    "out of the hub's local cache), hub-download (fetched where the cache lacks them), none to start from chance, or "
    "auto: the encoder of the run's segmenter where that is the same network, else hub"
)
_CHOICES = (
    "give a file with --backbone-weights FILE (pseudolabel models --kind encoders lists some), or say "
    "--backbone-weights none to start from chance"
)


class ResolvedBackbone(NamedTuple):
    """A name that builds the encoder wherever it is built, and weights that are here: a file, smp:DIR, hub or none."""

    name: str
    weights: str


class HubFiles(NamedTuple):
    """A repository of the hub and the names that its weights may have, the first that is there counts."""

    repository: str
    revision: str
    names: tuple[str, ...]


def resolve_backbone_weights(backbone: str, weights: str) -> ResolvedBackbone:
    """The backbone and its weights, after a look that they are there; see the module for what both may be.

    A trainer calls this before all else: a typo or a missing file is told at once.

    Raises:
        ConfigError: no such backbone, weights for one that brings its own, or `hub` for one that the hub has not.
        InputError: no such file, or the hub's cache lacks the weights and they were not asked to be fetched, or
            cannot be.
    """
    from pseudolabel.encoders.bodies import SMP, check_name

    if backbone.startswith(SEGMENTER):
        from pseudolabel.encoders.from_smp import encoder_name

        if weights not in (AUTO, HUB, NONE):
            raise ConfigError(f"--backbone {backbone} brings its own weights: leave out --backbone-weights")
        return ResolvedBackbone(SMP + encoder_name(backbone), backbone)
    check_name(backbone)
    if weights in (AUTO, HUB, HUB_DOWNLOAD):
        find_on_hub(backbone, fetch=weights == HUB_DOWNLOAD)
        return ResolvedBackbone(backbone, HUB)
    if weights != NONE and not weights.startswith(SEGMENTER) and not Path(weights).is_file():
        raise InputError(f"{weights}: no such weights file; --backbone-weights takes a file, hub, hub-download or none")
    return ResolvedBackbone(backbone, weights)


def backbone_files(backbone: str, weights: str) -> dict[str, Path]:
    """The files that decide what an encoder begins with; none for what the hub has and for chance."""
    segmenter = next((one for one in (backbone, weights) if one.startswith(SEGMENTER)), None)
    if segmenter is not None:
        from pseudolabel.encoders.from_smp import encoder_files

        return encoder_files(segmenter)
    if weights in (AUTO, HUB, HUB_DOWNLOAD, NONE):
        return {}
    path = Path(weights)
    if path.suffix != ".onnx":
        return {"backbone": path}
    from pseudolabel.known_models import card_path  # YAML is a fifth of what `--help` takes

    card = card_path(path)
    return {"backbone": path} | ({"card": card} if card else {})


def find_on_hub(backbone: str, *, fetch: bool) -> Path:
    """The file of the encoder's ImageNet weights in the hub's cache, fetched first if that is asked for.

    Raises:
        ConfigError: the hub has no weights for it.
        InputError: they are not in the cache and not to be fetched, or cannot be.
    """
    from huggingface_hub import try_to_load_from_cache

    wanted = _on_the_hub(backbone)
    for name in wanted.names:
        found = try_to_load_from_cache(wanted.repository, name, revision=wanted.revision)
        if isinstance(found, str):
            return Path(found)
    if fetch:
        return _fetched(backbone, wanted)
    raise InputError(
        f"backbone {backbone!r}: its weights ({wanted.repository}) are not in the hub's cache, and nothing is fetched "
        f"unasked: {_CHOICES}, or --backbone-weights hub-download to fetch them"
    )


def _fetched(backbone: str, wanted: HubFiles) -> Path:
    """Asks once whether the hub has the file, without the client's retries, and then fetches it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    reason = f"it has none of {', '.join(wanted.names)}"
    for name in wanted.names:
        try:
            get_hf_file_metadata(hf_hub_url(wanted.repository, name, revision=wanted.revision))
            return Path(hf_hub_download(wanted.repository, name, revision=wanted.revision))
        except EntryNotFoundError:
            continue
        except Exception as error:  # HTTP, sockets, the disk: the client's own kinds differ from version to version
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            break
    raise InputError(
        f"backbone {backbone!r}: {wanted.repository} cannot be fetched from the hub ({reason}): {_CHOICES}"
    )


def _on_the_hub(backbone: str) -> HubFiles:
    import segmentation_models_pytorch as smp
    from timm.models import get_pretrained_cfg

    from pseudolabel.encoders.bodies import smp_name, timm_name

    inner = smp_name(backbone)
    if inner in smp.encoders.encoders:
        settings = smp.encoders.encoders[inner]["pretrained_settings"].get("imagenet", {})
        if "repo_id" in settings:
            return HubFiles(settings["repo_id"], settings["revision"], ("model.safetensors",))
    card = None if inner or backbone == "tiny" else get_pretrained_cfg(timm_name(backbone))
    if card is None or not card.hf_hub_id:
        raise ConfigError(f"backbone {backbone!r} has no weights on the hub: {_CHOICES}")
    repository, _, revision = card.hf_hub_id.partition("@")
    names = (card.hf_hub_filename,) if card.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    return HubFiles(repository, revision or "main", names)
