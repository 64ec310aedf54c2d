"""`infer-semantic`: images to label maps with confidences."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import ManifestImage, usable_images
from pseudolabel.errors import ConfigError, RejectError
from pseudolabel.known_models import card_path
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Resources, Shard, Stage
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.stages.semantic_candidates import label_map_table
from pseudolabel.pipelines.work.tally import counted
from pseudolabel.prompted.onnx_files import onnx_files
from pseudolabel.segmenters.base import Looks, Photo, Seen, Segmenter, SegmenterOptions, open_segmenter, split_spec
from pseudolabel.segmenters.card import find_card
from pseudolabel.segmenters.known_classes import KnownClasses
from pseudolabel.segmenters.label_maps import encode_indices

if TYPE_CHECKING:
    from pseudolabel.segmenters.closer_looks import CloserLooks

_DECODERS = 2
_BATCHES_AHEAD = 2


class InferSemanticStage(Stage[InferSemanticConfig]):
    """Decodes ahead in threads while the network works, one row per image of the manifest."""

    name = "infer-semantic"
    version = 6
    config_class = InferSemanticConfig
    resources = Resources(gpu=True)
    schema = records.SEMANTIC

    _segmenter: Segmenter  # from `setup` on

    def __init__(self, config: InferSemanticConfig, run: RunPaths) -> None:
        super().__init__(config, run)
        self.writes = label_map_table(config.name)
        self._closer: CloserLooks | None = None

    def weights(self) -> Mapping[str, Path]:
        """Weights with the files that they name, card and architecture; of label maps the whole folder.

        Raises:
            ConfigError: no such kind of model, or a model without a card; told before any work begins.
        """
        kind, where = split_spec(self.config.model)
        files: dict[str, Path] = {}
        if kind == "onnx":
            files |= onnx_files(Path(where), "model")
        elif kind == "labels":
            files["label maps"] = Path(where)
        elif kind == "torchvision" and self.config.weights is not None:
            files["model"] = self.config.weights
        elif kind == "smp":
            from pseudolabel.segmenters.smp import CONFIG_NAME, resolve_folder, weights_file

            folder = resolve_folder(where)
            files |= {"model": weights_file(folder), "architecture": folder / CONFIG_NAME}
        if "model" in files and files["model"].is_file():
            find_card(files["model"], segmenter_options(self.config, "cpu"))
            card = card_path(files["model"], self.config.card)
            files |= {"card": card} if card else {}
        return files

    def setup(self, device: str) -> None:
        import torch

        from pseudolabel.segmenters.closer_looks import CloserLooks
        from pseudolabel.segmenters.network import NetworkSegmenter

        torch.set_num_threads(self.config.threads)
        segmenter = open_segmenter(self.config.model, segmenter_options(self.config, device))
        segmenter.probe()
        self._segmenter = segmenter
        if self.config.zoom and isinstance(segmenter, NetworkSegmenter):  # files have no more to say
            known = KnownClasses(read_plan(self.run_paths).class_names)
            self._closer = CloserLooks(segmenter, known, self.config.zoom_room)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        images = usable_images(inputs["manifest"])
        with ThreadPoolExecutor(_DECODERS) as pool:
            batches = _read_ahead(pool, images, self._segmenter, shard)
            results = (result for batch in batches for result in self._predict(batch))
            finished = [pool.submit(_row, key, seen, self._segmenter.classes) for key, seen in counted(results)]
            rows = [future.result() for future in finished]
        return records.table_from_rows(sorted(rows, key=lambda row: row["image_key"]), self.schema)

    def _predict(self, batch: list["_Read"]) -> Iterator[tuple[str, Seen]]:
        sound = [(read.image, read.photo) for read in batch if isinstance(read.photo, Photo)]
        found = {image.key: seen for (image, _), seen in zip(sound, self._seen(sound), strict=True)}
        for read in batch:
            said = Seen(read.photo) if isinstance(read.photo, RejectError) else found[read.image.key]
            yield read.image.key, said

    def _seen(self, sound: list[tuple[ManifestImage, Photo]]) -> list[Seen]:
        if self._closer:
            return self._closer.of([(image.boxes, photo) for image, photo in sound])
        return [Seen(maps) for maps in self._segmenter.predict([photo for _, photo in sound])]


@dataclass(frozen=True, slots=True)
class _Read:
    """An image of the manifest and its pixels."""

    image: ManifestImage
    photo: Photo | RejectError


def _read_ahead(
    pool: ThreadPoolExecutor, images: list[ManifestImage], segmenter: Segmenter, shard: Shard
) -> Iterator[list[_Read]]:
    """Batches of decoded photos, a few decoded in advance and never more."""
    size = segmenter.batch_size
    batches = [images[first : first + size] for first in range(0, len(images), size)]
    waiting: list[list[tuple[ManifestImage, Future[Photo | RejectError]]]] = []
    for number in range(len(batches) + _BATCHES_AHEAD):
        if number < len(batches):
            waiting.append([(image, pool.submit(_photo, image, segmenter, shard)) for image in batches[number]])
        if number >= _BATCHES_AHEAD:
            yield [_Read(image, future.result()) for image, future in waiting.pop(0)]


def _photo(image: ManifestImage, segmenter: Segmenter, shard: Shard) -> Photo | RejectError:
    try:
        rgb = planned_pixels(image, shard) if segmenter.needs_pixels else None
    except RejectError as reject:
        return reject
    return Photo(image.file_name, image.size_hw, rgb)


def _row(image_key: str, seen: Seen, classes: tuple[str, ...]) -> dict[str, Any]:
    key = {"image_key": image_key}
    said = (seen.maps, *(mask for _, mask in seen.looks or ()))
    failed = [one for one in said if isinstance(one, RejectError)]
    if failed or isinstance(seen.maps, RejectError):
        return key | records.rejected(InferSemanticStage.name, failed[0].reason, failed[0].detail)
    return {
        **key,
        "classes": list(classes),
        "label_map": encode_indices(seen.maps.label_map),
        "confidence": encode_indices(seen.maps.confidence),
        "looks": _look_rows(seen.looks),
        **records.ok(InferSemanticStage.name),
    }


def _look_rows(looks: Looks | None) -> list[dict[str, Any]] | None:
    if looks is None:
        return None
    return [
        {"annotation_id": annotation, "mask": records.soft_mask_to_struct(mask)}
        for annotation, mask in looks
        if not isinstance(mask, RejectError)
    ]


def segmenter_options(config: InferSemanticConfig, device: str) -> SegmenterOptions:
    """What a segmenter is opened with.

    Raises:
        ConfigError: numbers or a size that cannot be read.
    """
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
