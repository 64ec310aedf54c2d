"""`models` and `card`: which models are known to work, and a model card for another one."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError
from pseudolabel.files import write_text_atomically
from pseudolabel.known_models import KINDS, KnownModel, known_models, shipped_cards
from pseudolabel.pipelines.options.tools import CardConfig, ModelsConfig


def models(config: ModelsConfig) -> list[dict[str, Any]]:
    """Every known model of the kinds asked for; what is not known of one is None."""
    wanted = config.kind or KINDS
    return [one.model_dump() for one in known_models() if one.kind in wanted]


def format_models(rows: Sequence[dict[str, Any]]) -> str:
    """The list for people, a paragraph for each model."""
    lines: list[str] = []
    for kind in KINDS:
        of_kind = [KnownModel.model_validate(row) for row in rows if row["kind"] == kind]
        lines += [kind, *(line for one in of_kind for line in _lines(one)), ""] if of_kind else []
    return "\n".join(
        [
            *lines,
            "Nothing is fetched by this command: type what stands behind `fetch` where there is a network. Where no",
            "sha256 is told, nobody here had the file. Licences are the publishers': look them up before use.",
        ]
    )


def card(file: Path, config: CardConfig) -> dict[str, Any]:
    """A template of a model card, on its way to a file or to the terminal.

    Raises:
        InputError: no ONNX segmenter, or there is a card already.
    """
    from pseudolabel.segmenters.card_template import card_template  # imports torch

    if config.output is not None and config.output.exists():
        raise InputError(f"{config.output} is there already; delete it, or choose another --output")
    text = card_template(file, config.classes_from)
    if config.output is None:
        again = f"pseudolabel card {shlex.quote(str(file))} --output {shlex.quote(str(file.with_suffix('.yaml')))}"
        return {"card": text, "output": None, "next": again}
    write_text_atomically(config.output, text)
    named = "" if config.output == file.with_suffix(".yaml") else f" --card {shlex.quote(str(config.output))}"
    use = f"pseudolabel infer-semantic RUN --model {shlex.quote(str(file))}{named}"
    return {"card": text, "output": str(config.output), "next": use}


def format_card(result: dict[str, Any]) -> str:
    """The card, or where it is and what to do with it."""
    if result["output"] is None:
        return str(result["card"]).rstrip("\n")
    marked = str(result["card"]).count("# CHECK")
    return f"wrote {result['output']}: look at its {marked} lines marked CHECK"


def _lines(one: KnownModel) -> list[str]:
    size = f", {one.size_text}" if one.size_text else ""
    sha256 = one.sha256 or (f"begins with {one.sha256_begins}" if one.sha256_begins else None)
    told = {
        "source": one.source,
        "licence": one.licence,
        "sha256": sha256,
        "fetch": one.fetch or "by hand: not published as this file",
        "use": one.use,
        "card": f"{one.card}, which ships: {shipped_cards()[one.card]}" if one.card else None,
    }
    return [f"  {one.name}: {one.what}{size}", *(f"    {key:<8}{value}" for key, value in told.items() if value)]
