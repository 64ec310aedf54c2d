"""`infer-semantic`: images to label maps with confidences."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from pseudolabel import records
from pseudolabel.config import option
from pseudolabel.errors import ConfigError, RejectError
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.stage import Resources, Shard, StageConfig

if TYPE_CHECKING:
    from pseudolabel.segmenters.base import Photo, Segmenter, SegmenterOptions, SemanticResult

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
    long_side: int | None = option(
        None, "longer side in px at which images enter, shape kept; default: the card's size", ge=16, le=8192
    )
    batch_size: int = option(1, "images per forward pass; raise it on a GPU", ge=1, le=1024)
    threads: int = option(1, "CPU threads of one worker's forward pass", ge=1)
    label_format: Literal["voc", "ade20k", "cityscapes-labelids", "cityscapes-trainids", "raw"] | None = option(
        None, "what the values in labels:DIR mean"
    )
    label_offset: int | None = option(None, "added to a raw value to give a class index")
    ignore_index: int | None = option(None, "value in label maps that means no class", ge=0, le=65535)


class InferSemanticStage:
    """Decodes ahead in threads while the network works, one row per image of the manifest."""

    name: ClassVar[str] = "infer-semantic"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[StageConfig]] = InferSemanticConfig
    resources: ClassVar[Resources] = Resources(cpus=1, gpu=True)
    unit: ClassVar[Literal["image", "object"]] = "image"
    schema: ClassVar[pa.Schema] = records.SEMANTIC
    writes = "semantic"

    def __init__(self, config: StageConfig, run: RunPaths) -> None:
        assert isinstance(config, InferSemanticConfig)
        self._config = config
        self._segmenter: Segmenter | None = None

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

        torch.set_num_threads(self._config.threads)
        segmenter = open_segmenter(self._config.model, _segmenter_options(self._config, device))
        segmenter.probe()
        self._segmenter = segmenter

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        assert self._segmenter is not None, "setup comes first"
        images = _usable_images(inputs["manifest"])
        with ThreadPoolExecutor(_DECODERS) as pool:
            batches = _read_ahead(pool, images, self._segmenter, shard)
            finished = [pool.submit(_row, *item) for batch in batches for item in self._predict(batch)]
            rows = [future.result() for future in finished]
        return records.table_from_rows(sorted(rows, key=lambda row: row["image_key"]), self.schema)

    def finish(self, paths: list[Path]) -> None:
        """Nothing is exported from label maps."""

    def _predict(
        self, batch: list[tuple[str, "Photo | RejectError"]]
    ) -> Iterator[tuple[str, "SemanticResult | RejectError", tuple[str, ...]]]:
        from pseudolabel.segmenters.base import Photo

        assert self._segmenter is not None
        photos = [photo for _, photo in batch if isinstance(photo, Photo)]
        results = iter(self._segmenter.predict(photos))
        for key, photo in batch:
            yield key, next(results) if isinstance(photo, Photo) else photo, self._segmenter.classes


def _usable_images(manifest: pa.Table) -> list[dict[str, Any]]:
    columns = ["image_key", "file_name", "width", "height", "status", "annotation_id"]
    rows: list[dict[str, Any]] = manifest.select(columns).to_pylist()
    return [row for row in rows if row["status"] == "ok" and row["annotation_id"] is None]


def _read_ahead(
    pool: ThreadPoolExecutor, images: list[dict[str, Any]], segmenter: "Segmenter", shard: Shard
) -> Iterator[list[tuple[str, "Photo | RejectError"]]]:
    """Batches of decoded photos, a few decoded in advance and never more."""
    size = segmenter.batch_size
    batches = [images[first : first + size] for first in range(0, len(images), size)]
    waiting: list[list[tuple[str, Future[Photo | RejectError]]]] = []
    for number in range(len(batches) + _BATCHES_AHEAD):
        if number < len(batches):
            submitted = [(row["image_key"], pool.submit(_photo, row, segmenter, shard)) for row in batches[number]]
            waiting.append(submitted)
        if number >= _BATCHES_AHEAD:
            yield [(key, future.result()) for key, future in waiting.pop(0)]


def _photo(row: dict[str, Any], segmenter: "Segmenter", shard: Shard) -> "Photo | RejectError":
    from pseudolabel.images import load_image
    from pseudolabel.segmenters.base import Photo

    size_hw = (row["height"], row["width"])
    if not segmenter.needs_pixels:
        return Photo(row["file_name"], size_hw)
    try:
        rgb = load_image(shard.images_root, row["file_name"], exif=_exif(shard))
    except RejectError as reject:
        return reject
    if rgb.shape[:2] != size_hw:
        return RejectError(
            "changed_since_plan", f"planned as {size_hw[1]}x{size_hw[0]}, is {rgb.shape[1]}x{rgb.shape[0]}"
        )
    return Photo(row["file_name"], size_hw, rgb)


def _exif(shard: Shard) -> Literal["transpose", "ignore"]:
    return "transpose" if shard.exif == "transpose" else "ignore"


def _row(key: str, result: "SemanticResult | RejectError", classes: tuple[str, ...]) -> dict[str, Any]:
    from pseudolabel.segmenters.label_maps import encode_indices

    if isinstance(result, RejectError):
        return {"image_key": key, **records.rejected(InferSemanticStage.name, result.reason, result.detail)}
    return {
        "image_key": key,
        "classes": list(classes),
        "label_map": encode_indices(result.label_map),
        "confidence": encode_indices(result.confidence),
        **records.ok(InferSemanticStage.name),
    }


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
