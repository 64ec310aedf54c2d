"""From what the user has (a folder, and annotations in some format) to the frozen plan of a run."""

from pathlib import Path

from pseudolabel.datasets import Dataset, ReadOptions, detect_format, open_dataset
from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.options.stages.shard import PlanConfig
from pseudolabel.pipelines.planning.plan import Plan, PlanRequest, write_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.sources.place import absolute, is_url

_ANNOTATIONS = (".json", ".xml", ".yaml", ".txt", ".csv")


def make_plan(run: RunPaths, config: PlanConfig) -> Plan:
    """Read the input and freeze the plan; the same input again is no work.

    Raises:
        InputError: the folder or the annotations are missing or damaged.
        StaleOutputError: the run folder has another plan.
    """
    root = absolute(config.images)
    if Path(config.images).is_file() and Path(config.images).suffix in _ANNOTATIONS:
        raise ConfigError(
            f"--images {config.images} is a file of annotations: say  --annotations {config.images} --images FOLDER"
        )
    if not is_url(root):
        _refuse_run_inside_images(run, Path(config.images))
    kind, dataset = open_input(config)
    request = PlanRequest(
        images_root=root,
        source=f"{kind}:{config.annotations or config.images}",
        num_shards=config.shards,
        exif=config.exif,
        categories=dataset.categories,
        info=dataset.info,
        licenses=dataset.licenses,
        stretch=config.stretch,
        channels=tuple(config.channels),
        page=config.page,
        notes=dataset.notes,
        wants_boxes=config.annotations is not None,
        sample=config.sample,
    )
    return write_plan(run, request, dataset.rows())


def open_input(config: PlanConfig) -> tuple[str, Dataset]:
    """The format of what the user has, and its reader.

    Raises:
        InputError: the folder or the annotations are missing or damaged.
    """
    kind = config.source or detect_format(config.annotations, has_images_json=config.images_json is not None)
    options = ReadOptions(config.exif, config.strip_prefix, config.images_json, config.box_format, config.crowds)
    images = absolute(config.images)
    return kind, open_dataset(kind, images=images, annotations=config.annotations, options=options)


def _refuse_run_inside_images(run: RunPaths, images: Path) -> None:
    if run.root.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"the run folder {run.root} lies inside the image folder {images}; choose another place")
