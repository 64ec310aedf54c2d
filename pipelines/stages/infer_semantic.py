"""`infer-semantic`: images to label maps with confidences."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from pseudolabel import records
from pseudolabel.config import option
from pseudolabel.errors import ConfigError, RejectError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.stage import TABLE_NAME, Resources, Shard, StageConfig
from pseudolabel.pipelines.stages.closer_looks import CloserLooks, Looks
from pseudolabel.pipelines.stages.planned_images import planned_pixels, usable_images
from pseudolabel.pipelines.stages.semantic_boxes import SemanticBoxes
from pseudolabel.pipelines.stages.semantic_candidates import (
    MASKS_HELP,
    NAME_HELP,
    UNKNOWN_HELP,
    label_map_table,
)

if TYPE_CHECKING:
    from pseudolabel.segmenters.base import Photo, Segmenter, SegmenterOptions, SemanticResult

ZoomRoom = Annotated[float, Field(ge=0.25, le=8)]
_DECODERS = 2
_BATCHES_AHEAD = 2


class InferSemanticConfig(StageConfig):
    """Options of `infer-semantic`."""

    model: str = option(..., "onnx:FILE, smp:DIR-or-hub-id, torchvision:NAME or labels:DIR")
    weights: Path | None = option(None, "state dict of a torchvision model (.safetensors or .pt)")
    card: Path | None = option(None, "model card; default: the YAML of the same stem beside the weights")
    classes: list[str] | None = option(None, "class names in order, where no card says them")
    mean: str | None = option(None, "mean of values in [0, 1], as 0.485,0.456,0.406, where no card says it")
    std: str | None = option(None, "standard deviation likewise")
    size: str | None = option(None, "HEIGHTxWIDTH of the model's input, where no card says it")
    align_corners: bool | None = option(None, "how the output grid maps to the image, where no card says it")
    zoom: bool = option(
        True,
        "networks: look closer at every given box of a class that they know, one more forward pass for each zoom-room",
    )
    zoom_room: list[ZoomRoom] = option(
        [0.5, 1.0],
        "what a closer look shows around the box, in longer sides of it; may be repeated: a look and a candidate each",
        min_length=1,
    )
    name: str = option("semantic", NAME_HELP, changes_result=False, pattern=TABLE_NAME)
    masks: Literal["refined", "region"] = option("refined", MASKS_HELP, changes_result=False)
    unknown_classes: Literal["colors", "none"] | None = option(
        None,
        f"{UNKNOWN_HELP}; default: colors, and none for a further segmenter, beside which the first one has said that",
        changes_result=False,
        validate_default=True,
    )
    long_side: int | None = option(
        None, "longer side in px at which images enter, shape kept; default: the card's size", ge=16, le=8192
    )
    batch_size: int = option(1, "images per forward pass; raise it on a GPU", ge=1, le=1024)
    threads: int = option(1, "CPU threads of one worker's forward pass", ge=1)
    label_format: Literal["voc", "ade20k", "cityscapes-labelids", "cityscapes-trainids", "raw"] | None = option(
        None, "what the values in labels:DIR mean"
    )
    label_offset: int | None = option(None, "added to a raw value to give a class index")
    label_suffix: str = option("", "what ends a label map's name behind the image's, such as _gtFine_labelIds")
    ignore_index: int | None = option(None, "value in label maps that means no class", ge=0, le=65535)

    @field_validator("unknown_classes")
    @classmethod
    def _once(cls, value: str | None, info: ValidationInfo) -> str:
        return value or ("colors" if info.data.get("name") == "semantic" else "none")


class InferSemanticStage:
    """Decodes ahead in threads while the network works, one row per image of the manifest."""

    name: ClassVar[str] = "infer-semantic"
    version: ClassVar[int] = 4
    config_class: ClassVar[type[StageConfig]] = InferSemanticConfig
    resources: ClassVar[Resources] = Resources(cpus=1, gpu=True)
    unit: ClassVar[Literal["image", "object"]] = "image"
    schema: ClassVar[pa.Schema] = records.SEMANTIC

    def __init__(self, config: StageConfig, run: RunPaths) -> None:
        assert isinstance(config, InferSemanticConfig)
        self._config = config
        self.writes = label_map_table(config.name)
        self._run = run
        self._segmenter: Segmenter | None = None
        self._closer: CloserLooks | None = None

    def reads(self) -> tuple[str, ...]:
        return ("manifest",)

    def weights(self) -> Mapping[str, Path]:
        """Weights, card and architecture; label PNGs are inputs that change with the folder and are not hashed."""
        kind, _, where = self._config.model.partition(":")
        files: dict[str, Path] = {}
        if kind == "onnx":
            files["model"] = Path(where)
        elif kind == "torchvision" and self._config.weights is not None:
            files["model"] = self._config.weights
        elif kind == "smp":
            from pseudolabel.segmenters.smp import CONFIG_NAME, resolve_folder, weights_file

            folder = resolve_folder(where)
            files |= {"model": weights_file(folder), "architecture": folder / CONFIG_NAME}
        card = self._config.card or (files["model"].with_suffix(".yaml") if files else None)
        if card is not None and card.is_file():
            files["card"] = card
        return files

    def setup(self, device: str) -> None:
        import torch

        from pseudolabel.segmenters.base import open_segmenter
        from pseudolabel.segmenters.network import NetworkSegmenter

        torch.set_num_threads(self._config.threads)
        segmenter = open_segmenter(self._config.model, _segmenter_options(self._config, device))
        segmenter.probe()
        self._segmenter = segmenter
        if self._config.zoom and isinstance(segmenter, NetworkSegmenter):  # files have no more to say
            self._closer = CloserLooks(segmenter, SemanticBoxes(read_plan(self._run)), self._config.zoom_room)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        assert self._segmenter is not None, "setup comes first"
        images = usable_images(inputs["manifest"])
        with ThreadPoolExecutor(_DECODERS) as pool:
            batches = _read_ahead(pool, images, self._segmenter, shard)
            finished = [
                pool.submit(_row, result, self._segmenter.classes) for b in batches for result in self._predict(b)
            ]
            rows = [future.result() for future in finished]
        return records.table_from_rows(sorted(rows, key=lambda row: row["image_key"]), self.schema)

    def finish(self, paths: list[Path]) -> None:
        """Nothing is exported from label maps."""

    def _predict(self, batch: "list[_Read]") -> "Iterator[_Result]":
        from pseudolabel.segmenters.base import Photo

        assert self._segmenter is not None
        sound = [read for read in batch if isinstance(read.photo, Photo)]
        results = self._segmenter.predict([read.photo for read in sound if isinstance(read.photo, Photo)])
        found = {read.row["image_key"]: result for read, result in zip(sound, results, strict=True)}
        good = [read for read in sound if not isinstance(found[read.row["image_key"]], RejectError)]
        looks = self._closer.of([(read.row, read.photo) for read in good]) if self._closer else {}
        for read in batch:
            key = read.row["image_key"]
            maps = read.photo if isinstance(read.photo, RejectError) else found[key]
            yield _Result(key, maps, looks.get(key))


@dataclass(frozen=True, slots=True)
class _Read:
    """A row of the manifest and its decoded image."""

    row: dict[str, Any]
    photo: "Photo | RejectError"


@dataclass(frozen=True, slots=True)
class _Result:
    """What one image's row is made of."""

    image_key: str
    maps: "SemanticResult | RejectError"
    looks: "Looks | None"


def _read_ahead(
    pool: ThreadPoolExecutor, images: list[dict[str, Any]], segmenter: "Segmenter", shard: Shard
) -> "Iterator[list[_Read]]":
    """Batches of decoded photos, a few decoded in advance and never more."""
    size = segmenter.batch_size
    batches = [images[first : first + size] for first in range(0, len(images), size)]
    waiting: list[list[tuple[dict[str, Any], Future[Photo | RejectError]]]] = []
    for number in range(len(batches) + _BATCHES_AHEAD):
        if number < len(batches):
            waiting.append([(row, pool.submit(_photo, row, segmenter, shard)) for row in batches[number]])
        if number >= _BATCHES_AHEAD:
            yield [_Read(row, future.result()) for row, future in waiting.pop(0)]


def _photo(row: dict[str, Any], segmenter: "Segmenter", shard: Shard) -> "Photo | RejectError":
    from pseudolabel.segmenters.base import Photo

    try:
        rgb = planned_pixels(row, shard) if segmenter.needs_pixels else None
    except RejectError as reject:
        return reject
    return Photo(row["file_name"], (row["height"], row["width"]), rgb)


def _row(result: _Result, classes: tuple[str, ...]) -> dict[str, Any]:
    from pseudolabel.segmenters.label_maps import encode_indices

    key = {"image_key": result.image_key}
    seen = [mask for _, mask in result.looks or ()]
    failed = [one for one in (result.maps, *seen) if isinstance(one, RejectError)]
    if failed or isinstance(result.maps, RejectError):
        return key | records.rejected(InferSemanticStage.name, failed[0].reason, failed[0].detail)
    return {
        **key,
        "classes": list(classes),
        "label_map": encode_indices(result.maps.label_map),
        "confidence": encode_indices(result.maps.confidence),
        "looks": _look_rows(result.looks),
        **records.ok(InferSemanticStage.name),
    }


def _look_rows(looks: "Looks | None") -> list[dict[str, Any]] | None:
    if looks is None:
        return None
    return [
        {"annotation_id": annotation, "mask": records.soft_mask_to_struct(mask)}
        for annotation, mask in looks
        if not isinstance(mask, RejectError)
    ]


def _segmenter_options(config: InferSemanticConfig, device: str) -> "SegmenterOptions":
    from pseudolabel.segmenters.base import SegmenterOptions

    return SegmenterOptions(
        weights=config.weights,
        card=config.card,
        classes=tuple(config.classes or ()),
        mean=_numbers(config.mean, "--mean"),
        std=_numbers(config.std, "--std"),
        size_hw=_size(config.size),
        align_corners=config.align_corners,
        long_side=config.long_side,
        batch_size=config.batch_size,
        threads=config.threads,
        device=device,
        label_format=config.label_format,
        label_offset=config.label_offset,
        label_suffix=config.label_suffix,
        ignore_index=config.ignore_index,
    )


def _numbers(text: str | None, flag: str) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise ConfigError(f"{flag} {text!r}: expected three numbers with commas, as 0.485,0.456,0.406")
    return numbers


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigError(f"--size {text!r}: expected HEIGHTxWIDTH, as 512x512")
    return int(height), int(width)
