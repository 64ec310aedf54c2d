"""A trained student on disk: weights, config, and a card that says what it is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Bool, UInt8
from pydantic import TypeAdapter, ValidationError

from pseudolabel import rle
from pseudolabel.errors import InputError
from pseudolabel.labels import Labels
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.students.base import Student, StudentConfig, make_student
from pseudolabel.training.checkpoint import read_config, save_model
from pseudolabel.weights import load_weights_file

_RULE = TypeAdapter(PixelRule)


@dataclass(frozen=True, slots=True)
class TrainedStudent:
    """A student that is ready to predict; `pseudolabel.Student`."""

    student: Student
    categories: tuple[dict[str, Any], ...]
    image_px: int  # what the longer side of an image is resized to
    rule: PixelRule = PixelRule()  # by which the images of its training were read

    @classmethod
    def load(cls, weights: Path | str, *, device: str = "cpu") -> "TrainedStudent":
        """The student of a file that `train-student` wrote.

        Raises:
            InputError: the weights or the config beside them are missing, damaged, or no student's.
        """
        return load_student(Path(weights), device=device)

    def predict(self, rgb: UInt8[np.ndarray, "h w 3"], *, image_px: int | None = None) -> Labels:
        """What it finds on one picture, best first, with its own scores and without decisions.

        Args:
            image_px: the longer side at which the picture enters; as in training if not given.
        """
        pixels = np.asarray(rgb)
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        found = self.student.predict([image], image_px=image_px or self.image_px)[0]
        planes = zip(found.masks.cpu().numpy(), found.labels.tolist(), found.scores.tolist(), strict=True)
        rows = [self._row(mask, label, score) for mask, label, score in planes if mask.any()]
        return Labels.of_image(rows, pixels, self.categories)

    def _row(self, mask: Bool[np.ndarray, "h w"], label: int, score: float) -> dict[str, Any]:
        encoded = rle.encode(mask)
        return {
            "category_id": self.categories[label]["id"],
            "segmentation": encoded,
            "bbox_xywh": [float(value) for value in rle.bbox_xywh(encoded)],
            "area": rle.area(encoded),
            "iscrowd": False,
            "score": score,
        }


def save_student(
    weights: Path,
    student: Student,
    config: StudentConfig,
    categories: Sequence[Mapping[str, Any]],
    *,
    image_px: int,
    about: Mapping[str, Any],
    rule: PixelRule = PixelRule(),
) -> str:
    """Write the weights and, beside them, the YAML from which the student is built again; the sha256 of the weights.

    Args:
        rule: by which the images of the training were read; `predict` reads others alike.
    """
    content = {
        "method": "student",  # what `infer-teacher` takes it for
        "student": config.model_dump(mode="json"),
        "categories": [dict(row) for row in categories],
        "image_px": image_px,
        "pixels": {**asdict(rule), "channels": list(rule.channels)},
        **about,
    }
    return save_model(weights, student.state_dict(), content)


def load_student(weights: Path, *, device: str = "cpu") -> TrainedStudent:
    """The student of a file, in evaluation mode.

    Raises:
        InputError: the weights or the config beside them are missing, damaged, or no student's.
    """
    content = read_config(weights)
    try:
        config = StudentConfig.model_validate(content["student"])
        categories = tuple({"id": int(row["id"]), "name": str(row["name"])} for row in content["categories"])
        image_px = int(content["image_px"])
        rule = _RULE.validate_python(content.get("pixels", {}))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise InputError(f"{weights}: its config is no student's ({type(error).__name__}: {error})") from None
    student = make_student(config, len(categories))
    load_weights_file(student, weights)
    return TrainedStudent(student.to(device).eval(), categories, image_px, rule)


def model_card(
    name: str,
    options: Mapping[str, Any],
    data: Mapping[str, Any],
    figures: Mapping[str, float],
    categories: Sequence[Mapping[str, Any]],
) -> str:
    """A model card: YAML in front for machines, Markdown below for people.

    What nobody said is written as unknown: a licence of the weights is for the person who ships them to choose.
    """
    licenses = [str(row.get("name") or row.get("url")) for row in data.get("licenses") or () if isinstance(row, dict)]
    front = {
        "license": "unknown",
        "library_name": "pseudolabel",
        "pipeline_tag": "image-segmentation",
        "tags": ["instance-segmentation", str(options["model"])],
        "data_licenses": licenses or ["unknown"],
        "metrics": dict(figures),
    }
    rows = {key: value for key, value in data.items() if key != "licenses"}
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).rstrip(),
        "---",
        f"# {name}",
        f"An instance segmenter ({options['model']}, {options['backbone']}) of {len(categories)} classes: "
        + ", ".join(str(row["name"]) for row in categories)
        + ".",
        "## Data",
        *(f"- {key}: {value}" for key, value in rows.items()),
        "## Labels",
        f"- masks: {'given' if options['given_masks'] else 'each box filled'}; "
        f"weight of a mask's loss: {options['mask_weight']}",
        f"- masks with a score below {options['mask_threshold']} train their box alone",
        f"- pixels that the labels are not sure of: {str(options['unsure']).replace('_', ' ')}",
        "## Figures",
        *([f"- {key}: {value}" for key, value in figures.items()] or ["- none were measured during training"]),
        "## Options",
        "```json",
        json.dumps(options, indent=1),
        "```",
    ]
    return "\n".join(lines) + "\n"
