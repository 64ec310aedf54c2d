"""The box-conditioned teacher on a run's boxes: objects from the manifest, canvases on disk, then the shared loop."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pseudolabel.candidates import GivenBox
from pseudolabel.config import result_relevant
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.trainers.canvases import Canvases
from pseudolabel.pipelines.trainers.images import BoxedImage, boxed_images
from pseudolabel.pipelines.trainers.loop import begin, loop_config
from pseudolabel.pipelines.trainers.mal_rounds import VIEWS, fused_targets
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.infer import MalTeacher
from pseudolabel.teachers.mal.method import Mal
from pseudolabel.teachers.mal.network import build_network
from pseudolabel.training.checkpoint import save_model
from pseudolabel.training.fit import fit

_MIN_SIDE_PX = 1.0


def train_mal(run: RunPaths, config: MalConfig, folder: Path) -> Path:
    """Train on every box of the run that is no crowd and at least a pixel wide and high, round after round.

    The first round learns from the boxes alone, unless `guided_from` says 1; each later one, from the start again, also
    from the masks that the last one's network gave, with those of `guides`, fused.

    Raises:
        InputError: there is no such box, or an image cannot be read any more.
    """
    device, plan = begin(config), read_plan(run)
    images = at_most(boxed_images(run, plan, is_learned), config)
    objects = Canvases(folder, plan, images, config.canvas_px)
    method, teacher = None, None
    for number, model in enumerate(config.by_round(), start=1):
        own = folder if number == 1 else folder / f"round-{number}"
        guides = config.guides if number >= config.guided_from else []
        if teacher is not None or guides:
            objects.targets = fused_targets(run, plan, images, teacher, guides, own / "targets.npy")
        name = "train-teacher" if config.rounds == 1 else f"train-teacher, round {number} of {config.rounds}"
        method = _trained(objects, model, own, device, name)
        teacher = MalTeacher(method.average, model, device=device, views=VIEWS)
    assert method is not None, "there is at least one round"
    about = {"method": "mal", "model": result_relevant(method.config), "objects": len(objects)}
    save_model(run.model("teacher"), method.model_state(), about)
    objects.close()
    return run.model("teacher")


def at_most(images: Sequence[BoxedImage], config: MalConfig) -> list[BoxedImage]:
    """All images, or as many whole ones, drawn by the seed, as have no more than the wanted objects; one at least.

    Whole ones, as objects are told of the others of their image.
    """
    if sum(len(image.objects) for image in images) <= config.max_objects:
        return list(images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed)).tolist()
    counts = torch.tensor([len(images[place].objects) for place in order]).cumsum(0)
    fitting = max(1, int((counts <= config.max_objects).sum()))
    return [images[place] for place in sorted(order[:fitting])]


def is_learned(target: GivenBox) -> bool:
    """Whether a box is at least a pixel wide and high."""
    return min(target.bbox_xywh[2:]) >= _MIN_SIDE_PX


def _trained(objects: Canvases, model: MalConfig, folder: Path, device: str, name: str) -> Mal:
    """A new network after one round; a round that ended is only read again."""
    torch.manual_seed(model.seed)
    method = Mal(build_network(model.backbone, model.backbone_weights, width=model.width), model)
    fit(method, objects.load, len(objects), folder, loop_config(model, len(objects), device), name=name)
    return method
