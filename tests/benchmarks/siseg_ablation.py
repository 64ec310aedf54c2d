"""What each part of SISeg adds: connected components of the semantic mask, + displacement, + displacement + boundary.

Mask AP without boxes. `truth`: true semantic masks in, instances out (the paper's second setting); else the masks of a
segmenter: DeepLabv3 and the same at half width on photographs, a PSPNet on drawn scenes, which is trained here. The
network is always trained on the same kind of semantic masks that it is given, never on instances; with `--box-pairs`
boxes tell it which cells of a class are different objects'. `touching` scenes hold discs of one class alone, many of
them in contact. Every case has the defaults of `train-siseg` and `infer-siseg`. On real images the last rows are the
labels that `fuse` makes of given boxes, through the product's stages: without this source, with it, and of it alone.
`parameters` are the two heads', CPU seconds those of one image: of the fields, features included, and of the read-out.

    python tests/benchmarks/siseg_ablation.py --case touching --seeds 0,1,2 --box-pairs both \
        --out docs/results/siseg_ablation_touching.json
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import segmentation_models_pytorch as smp
import torch
import yaml
from harness import report, script_parser, shared_folder
from siseg_fused import FusedData, fused_figures, write_labels

from pseudolabel.images import load_image
from pseudolabel.masks import PixelMask, pixel_window, resample
from pseudolabel.metrics.coco_ap import mask_ap
from pseudolabel.metrics.objects import Prediction, TrueObject
from pseudolabel.pipelines.demo import segmenter as demo
from pseudolabel.pipelines.demo.scenes import draw_scene
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.rle import decode, encode, encode_crop, from_segmentation
from pseudolabel.segmenters.base import Photo, SegmenterOptions, open_segmenter
from pseudolabel.segmenters.class_map import match_classes
from pseudolabel.siseg.cells import semantic_cells
from pseudolabel.siseg.config import SisegCard, SisegRecipe
from pseudolabel.siseg.instances import FieldMaps, ReadOut, find_instances
from pseudolabel.siseg.model import new_network, predict_fields, save_siseg
from pseudolabel.siseg.network import SisegNetwork
from pseudolabel.siseg.pieces import Instance
from pseudolabel.siseg.train import Samples, SisegMethod, set_mean_displacement
from pseudolabel.siseg.views import LabelledBoxes, make_view
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit

STEPS = {
    "baseline": ReadOut(displaced=False, walk_steps=0),
    "displacement": ReadOut(walk_steps=0),
    "displacement_boundary": ReadOut(),
}
DISCS = ("disc",)
DEEPLAB = {
    "deeplabv3": "deeplabv3_mobilenetv2_voc21.onnx",
    "deeplabv3-050": "deeplabv3_mobilenetv2_050_voc21_513.onnx",
}
FRESH = 200_000  # first scene to measure on; defaults of the read-out were compared on scenes below 1,000


@dataclass(frozen=True)
class Item:
    """An image with its semantic labels (0 background, else the category's place + 1) and its true objects."""

    image_id: int
    file_name: str
    image: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray | None
    objects: tuple[TrueObject, ...]


@dataclass(frozen=True)
class Case:
    """Images to train on and to measure on, and the recipe."""

    name: str
    masks: str
    train: Sequence[Item]
    test: Sequence[Item]
    card: SisegCard
    weights: str
    crop: int
    steps: int
    learning_rate: float
    fused: "Fused | None" = None
    box_pairs: bool = False


@dataclass(frozen=True)
class Fused:
    """Where a case's boxes are, which count (see `fusion_ablation.CASES`), and the options of `infer-semantic`; None:
    the items' labels as PNGs.
    """

    images: Path
    annotations: Path
    objects: str
    semantic: dict[str, Any] | None


def drawn(classes: Sequence[str], name: str, arguments: argparse.Namespace) -> Case:
    """Scenes of this project, other ones to train on than to measure on, with features that stay as they are.

    Trained with the heads, the small encoder of chance (`tiny`) gave one centre to a whole clump of touching objects,
    which the pairs of section 1.3 allow; frozen features did not. What makes the difference was not measured.
    """
    train = [drawn_item(seed, classes) for seed in range(arguments.scenes)]
    test = [drawn_item(FRESH + seed, classes) for seed in range(arguments.images)]
    card, weights = small_card(2.0), small_weights()
    if arguments.backbone:
        card, weights = card.model_copy(update={"backbone": arguments.backbone, "scale": arguments.scale}), "none"
    return Case(name, "truth", train, test, card, weights, 256, arguments.steps, arguments.learning_rate)


def drawn_pspnet(arguments: argparse.Namespace, folder: Path) -> Case:
    """Mixed scenes behind a PSPNet that learned the classes from other ones."""

    def network() -> Any:
        return smp.PSPNet("tu-test_resnet", encoder_weights=None, classes=len(demo.class_names()), psp_out_channels=64)

    data = demo.make_demo_data(folder, scenes=1, test=1)
    with patch.object(demo, "build_network", network):
        demo._trained(*demo._read_labelled(data.train), demo.Recipe(), None).save_pretrained(folder / "pspnet")
    (folder / "pspnet" / "model.yaml").write_text(yaml.safe_dump(demo.card()))
    label = segmenter_labels(f"smp:{folder / 'pspnet'}")
    case = drawn((), "drawn", arguments)

    def seen(items: Sequence[Item]) -> list[Item]:
        found = [label(item.image, []) for item in items]
        return [replace(one, labels=of[0], confidence=of[1]) for one, of in zip(items, found, strict=True)]

    return replace(case, masks="pspnet", train=seen(case.train), test=seen(case.test))


def drawn_item(seed: int, classes: Sequence[str]) -> Item:
    scene = draw_scene(seed + 9_000, classes=classes) if classes else draw_scene(seed + 9_000)
    objects = [true_object(seed, label + 1, mask) for mask, label in zip(scene.masks, scene.labels, strict=True)]
    return Item(seed, "", scene.image, scene.semantic, None, tuple(objects))


def true_object(image_id: int, category_id: int, mask: np.ndarray) -> TrueObject:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
    area = int(mask.sum())
    return TrueObject(
        annotation_id=0,
        image_id=image_id,
        category_id=category_id,
        mask=encode(mask),
        area_px=area,
        coco_area=float(area),
        box_xywh=tuple(float(side) for side in box),
        is_crowd=False,
    )


def box_xyxy(target: TrueObject) -> tuple[float, float, float, float]:
    x, y, width, height = target.box_xywh
    return x, y, x + width, y + height


def nuclei(arguments: argparse.Namespace) -> Case:
    """Nuclei at twice their size, so that one is more than a few cells wide; trained on other images."""
    folder = shared_folder() / "data" / "nuclei-dev"
    train = coco_items(folder, folder / "instances_train.json", truth_labels, arguments.scenes)
    test = coco_items(folder, folder / "instances_val.json", truth_labels, arguments.images)
    card, weights = small_card(2.0), small_weights()
    fused = Fused(folder / "images", folder / "instances_val.json", "all", None)
    steps, rate = arguments.steps, arguments.learning_rate
    return Case("nuclei-dev", "truth", train, test, card, weights, 384, steps, rate, fused)


def coco(masks: str, arguments: argparse.Namespace) -> Case:
    """Photographs at four fifths of their size (640 x 480 to 512 x 384), trained and measured on: no instance enters
    the training.
    """
    folder = shared_folder() / "data" / "coco-dev"
    model = "" if masks == "truth" else f"onnx:{shared_folder() / 'weights' / DEEPLAB[masks]}"
    labels = segmenter_labels(model) if model else truth_labels
    items = coco_items(folder, folder / "instances.json", labels, arguments.images)
    card, weights = small_card(0.8), small_weights()
    fused = Fused(folder / "images", folder / "instances.json", "voc32", {"model": model}) if model else None
    return Case("coco-dev", masks, items, items, card, weights, 384, arguments.steps, arguments.learning_rate, fused)


def small_card(scale: float) -> SisegCard:
    return SisegCard(backbone="mobilenet_v2", head_width=128, scale=scale)


def small_weights() -> str:
    return str(shared_folder() / "weights" / "mobilenetv2_imagenet_fp16.safetensors")


Labelled = tuple[np.ndarray, np.ndarray | None]
Labeller = Callable[[np.ndarray, list[tuple[int, np.ndarray, bool]]], Labelled]


def coco_items(folder: Path, annotations: Path, labeller: Labeller, most: int) -> list[Item]:
    """The first images of a data set that have objects of known classes."""
    content = json.loads(annotations.read_text())
    voc = voc_index(content["categories"])
    items = []
    for entry in content["images"]:
        image = load_image(folder / "images", entry["file_name"], rule=PixelRule("ignore"))
        rows = [row for row in content["annotations"] if row["image_id"] == entry["id"] and row["category_id"] in voc]
        masks = [decode(from_segmentation(row["segmentation"], image.shape[:2])) for row in rows]
        places = [voc[row["category_id"]] for row in rows]
        known = list(zip(places, masks, (bool(row.get("iscrowd")) for row in rows), strict=True))
        labels, confidence = labeller(image, known)
        objects = tuple(
            replace(true_object(entry["id"], place, mask), is_crowd=crowd) for place, mask, crowd in known if mask.any()
        )
        if len(items) == most:
            break
        if objects:
            items.append(Item(entry["id"], entry["file_name"], image, labels, confidence, objects))
    return items


def voc_index(categories: list[dict[str, Any]]) -> dict[int, int]:
    """Label of every category: its VOC class, or its own place where none is in VOC."""
    segmenter: Any = open_segmenter(f"onnx:{shared_folder() / 'weights' / DEEPLAB['deeplabv3']}", SegmenterOptions())
    found = match_classes(segmenter.classes, {row["id"]: row["name"] for row in categories}).index_of
    return dict(found) or {row["id"]: place for place, row in enumerate(categories, start=1)}


def truth_labels(image: np.ndarray, known: list[tuple[int, np.ndarray, bool]]) -> Labelled:
    """Semantic labels out of true masks, small objects above large ones; crowds are ignored."""
    labels = np.zeros(image.shape[:2], np.uint8)
    for place, mask, crowd in sorted(known, key=lambda one: (not one[2], -int(one[1].sum()))):
        labels[mask] = 255 if crowd else place
    return labels, None


def segmenter_labels(model: str) -> Labeller:
    segmenter: Any = open_segmenter(model, SegmenterOptions())

    def label(image: np.ndarray, known: list[tuple[int, np.ndarray, bool]]) -> Labelled:
        (result,) = segmenter.predict([Photo("", image.shape[:2], image)])
        return result.label_map, result.confidence

    return label


def kept_or_trained(case: Case, seed: int, folder: Path | None) -> tuple[SisegNetwork, float]:
    """The network, out of `folder` where the same training has left it there, so that a read-out is measured again."""
    if folder is None:
        return trained(case, seed)
    recipe = f"{case.steps}_{len(case.train)}_{case.crop}_{case.card.scale:g}_{case.learning_rate:g}"
    recipe += "_boxes" if case.box_pairs else ""
    path = folder / f"{case.name}_{case.masks}_{recipe}_seed{seed}.pt"
    if not path.exists():
        network, train_s = trained(case, seed)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"network": network.state_dict(), "train_cpu_s": train_s}, path)
    content = torch.load(path, weights_only=True)
    network, _ = new_network(case.card, case.weights)
    network.load_state_dict(content["network"])
    return network.eval(), content["train_cpu_s"]


def trained(case: Case, seed: int) -> tuple[SisegNetwork, float]:
    """The case's network and the CPU seconds that its training took, features included."""
    torch.manual_seed(seed)
    network, _ = new_network(case.card, case.weights)

    def view(index: int) -> Any:
        item, mirrored = case.train[index // 2], bool(index % 2)
        scale = case.card.scale * (np.random.default_rng([seed, index]).uniform(0.67, 1.5) if mirrored else 1)
        known = [one for one in item.objects if not one.is_crowd]
        boxes = LabelledBoxes([box_xyxy(one) for one in known], [one.category_id for one in known])
        return make_view(str(item.image_id), item.image, item.labels, boxes=boxes, scale=float(scale), flip=mirrored)

    start = time.process_time()
    samples = Samples(network, view, device="cpu", cache_bytes=3 << 30)
    folder = Path(tempfile.mkdtemp())
    recipe = SisegRecipe(learning_rate=case.learning_rate, crop=case.crop, box_pairs=case.box_pairs)
    method = SisegMethod(network, recipe)
    settings = FitConfig(
        steps=case.steps, batch_size=4, seed=seed, device="cpu", weight_decay=1e-4, checkpoint_every=case.steps
    )
    fit(method, samples, 2 * len(case.train), folder, settings)
    shutil.rmtree(folder)
    set_mean_displacement(network, (samples([index])[0] for index in range(0, 2 * len(case.train), 2)))
    return network, time.process_time() - start


def predictions(instances: Iterable[Instance], item: Item) -> list[Prediction]:
    found = []
    for one in instances:
        window = pixel_window(one.mask.grid.extent_xyxy, item.labels.shape)
        pixels = resample(one.mask.probability.astype(np.float32) / 255, one.mask.grid, window) >= 0.5
        if pixels.any():
            mask = encode_crop(PixelMask(int(window.x0), int(window.y0), pixels), item.labels.shape)
            found.append(Prediction(0, item.image_id, one.class_index, mask, one.score, None))
    return found


def average_precision(items: Sequence[Item], fields: Sequence[FieldMaps], options: ReadOut) -> tuple[Any, int, float]:
    """AP of what is read out of the fields, how many instances that is, and the CPU seconds of an image."""
    found: list[Prediction] = []
    started = time.process_time()
    for item, maps in zip(items, fields, strict=True):
        cells = semantic_cells(item.labels, item.confidence, maps.boundary.shape, objects=range(1, 255))
        found += predictions(find_instances(maps, cells, options).instances, item)
    seconds = (time.process_time() - started) / len(items)
    return mask_ap((one for item in items for one in item.objects), found), len(found), seconds


def measure(case: Case, seed: int, keep: Path | None) -> list[dict[str, Any]]:
    """AP of every step of the ablation on one case, and figures of fused labels where it has boxes."""
    network, train_s = kept_or_trained(case, seed, keep)
    started = time.process_time()
    fields = [predict_fields(network, item.image, scale=case.card.scale, flip=True) for item in case.test]
    fields_s = (time.process_time() - started) / len(fields)
    heads = [one for name, one in network.named_parameters() if not name.startswith("backbone.")]
    common = {"case": case.name, "masks": case.masks, "box_pairs": case.box_pairs, "seed": seed}
    rows = []
    for setting, options in STEPS.items():
        scored, found, read_out_s = average_precision(case.test, fields, options)
        ap = {"ap": scored.ap, "ap50": scored.ap50, "ap75": scored.ap75}
        sizes = {"n": sum(len(item.objects) for item in case.test), "images": len(case.test), "found": found}
        cost = {"parameters": sum(one.numel() for one in heads), "fields_cpu_s": fields_s, "read_out_cpu_s": read_out_s}
        training = {"trained_on": len(case.train), "train_cpu_s": train_s}
        rows.append(common | {"setting": setting} | ap | sizes | training | cost)
    return rows + [common | row for row in fused_rows_of(case, network)]


def fused_rows_of(case: Case, network: SisegNetwork) -> list[dict[str, Any]]:
    """Labels of given boxes with and without this source."""
    if case.fused is None:
        return []
    with tempfile.TemporaryDirectory() as name:
        weights, labels = Path(name) / "siseg.safetensors", Path(name) / "labels"
        save_siseg(weights, network, case.card, {})
        semantic = case.fused.semantic
        if semantic is None:
            write_labels(labels, {item.file_name: item.labels for item in case.test})
            categories = json.loads(case.fused.annotations.read_text())["categories"]
            classes = ["background", *(row["name"] for row in categories)]
            semantic = {"model": f"labels:{labels}", "label_format": "raw", "classes": classes, "ignore_index": 255}
        ids = [item.image_id for item in case.test]
        data = FusedData(case.fused.images, case.fused.annotations, ids, case.fused.objects)
        return fused_figures(data, semantic, weights)


CASES: dict[str, Callable[[argparse.Namespace, Path], Case]] = {
    "drawn": lambda arguments, _: drawn((), "drawn", arguments),
    "drawn-pspnet": drawn_pspnet,
    "touching": lambda arguments, _: drawn(DISCS, "touching", arguments),
    "nuclei": lambda arguments, _: nuclei(arguments),
    "coco": lambda arguments, _: coco("deeplabv3", arguments),
    "coco-050": lambda arguments, _: coco("deeplabv3-050", arguments),
    "coco-truth": lambda arguments, _: coco("truth", arguments),
}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--case", choices=[*CASES, "all"], default="all")
    parser.add_argument("--steps", type=int, default=400)
    rate = SisegRecipe.model_fields["learning_rate"].default
    parser.add_argument("--learning-rate", type=float, default=rate, help="of the displacement head")
    parser.add_argument("--scenes", type=int, default=100, help="images to train on, at most; coco: those of --images")
    parser.add_argument("--images", type=int, default=60, help="images to measure on, at most")
    parser.add_argument("--seeds", default="0", help="of weights and order, separated by commas")
    parser.add_argument(
        "--box-pairs",
        choices=["off", "on", "both"],
        default="off",
        help="whether the training is told by boxes which cells of a class are of different objects",
    )
    parser.add_argument("--no-fused", action="store_true", help="instances without boxes alone, not what `fuse` makes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backbone", help="smp:DIR for the drawn cases; default: mobilenet_v2 of the shared weights")
    parser.add_argument("--scale", type=float, default=2.0, help="with --backbone")
    parser.add_argument("--keep", type=Path, help="folder for trained networks, to measure another read-out on them")
    arguments = parser.parse_args()
    wanted = list(CASES) if arguments.case == "all" else [arguments.case]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    torch.set_num_threads(arguments.threads)
    told = {"off": [False], "on": [True], "both": [False, True]}[arguments.box_pairs]
    with tempfile.TemporaryDirectory() as scratch:
        whole = [CASES[name](arguments, Path(scratch)) for name in wanted]
    made = [replace(case, box_pairs=on) for case in whole for on in told]
    made = [replace(one, fused=None) for one in made] if arguments.no_fused else made
    rows = [row for seed in seeds for case in made for row in measure(case, seed, arguments.keep)]
    name = "siseg_ablation" if len(wanted) > 1 else f"siseg_ablation_{wanted[0].replace('-', '_')}"
    report(name, rows, on=f"{arguments.steps} steps of 4 crops, mask AP without boxes; fused: given boxes", seeds=seeds)


if __name__ == "__main__":
    main()
