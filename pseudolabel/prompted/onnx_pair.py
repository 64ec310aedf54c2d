"""The files of an encoder and a decoder in one folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pseudolabel.errors import InputError
from pseudolabel.prompted.onnx_files import onnx_files

_PROCESSOR = "preprocessor_config.json"


def pair_files(where: str, card: Path | None) -> Mapping[str, Path]:
    """Encoder, decoder, what they keep in other files, and what says how the input is prepared.

    Raises:
        InputError: no such folder, not one encoder and one decoder, or a card that is not there.
    """
    folder = Path(where)
    encoder, decoder = pair_of(folder)
    found = {**onnx_files(encoder, "encoder"), **onnx_files(decoder, "decoder")}
    said = card_of(folder, card)
    processor = processor_of(folder)
    return found | ({"card": said} if said else {}) | ({"processor": processor} if processor else {})


def pair_of(folder: Path) -> tuple[Path, Path]:
    """The encoder and the decoder, told by their names.

    Raises:
        InputError: no such folder; none or several of a kind, which are listed.
    """
    if not folder.is_dir():
        raise InputError(f"sam-onnx:{folder} is no folder")
    files = sorted(folder.rglob("*.onnx"))
    # "prompt_encoder_mask_decoder.onnx" is a decoder
    decoders = [path for path in files if "decoder" in path.stem]
    encoders = [path for path in files if "encoder" in path.stem and path not in decoders]
    return _one(folder, "encoder", encoders, files), _one(folder, "decoder", decoders, files)


def card_of(folder: Path, card: Path | None) -> Path | None:
    """The card that was named, or the one YAML file beside the models.

    Raises:
        InputError: what was named is not there, or several lie there.
    """
    if card is not None:
        if not card.is_file():
            raise InputError(f"{card}: no model card")
        return card
    beside = sorted(folder.glob("*.yaml"))
    if len(beside) > 1:
        raise InputError(f"{folder}: several cards ({', '.join(path.name for path in beside)}); name one with --card")
    return beside[0] if beside else None


def processor_of(folder: Path) -> Path | None:
    """What transformers says of the input, where the export has it: in the folder, or above one called onnx."""
    places = [folder, folder.parent] if folder.name == "onnx" else [folder]
    return next((place / _PROCESSOR for place in places if (place / _PROCESSOR).is_file()), None)


def _one(folder: Path, kind: str, found: Sequence[Path], files: Sequence[Path]) -> Path:
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.relative_to(folder).as_posix() for path in (found or files)) or "no ONNX file"
    wanted = f"one *{kind}*.onnx"
    raise InputError(f"{folder}: expected {wanted}, found {listed}; leave one precision and one model in the folder")
