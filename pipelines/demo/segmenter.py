"""What `demo` needs before the chain can run: drawn scenes, and a small segmenter trained on some of them."""

# mypy: disable-error-code="no-untyped-call"
# (segmentation-models-pytorch and parts of torch have no types)

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pseudolabel.errors import MachineError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # as timm has it for this encoder, which teacher and student share
ENCODER = "test_resnet"  # timm's smallest ResNet
CROP_PX = 128
MAX_EXPORT_DIFFERENCE = 1e-3  # of logits between torch and onnxruntime
_TRAIN_SEED, _SCENES_SEED, _TEST_SEED = 1, 2, 3

Report = Callable[[int, int, float], None]  # step, steps, loss


@dataclass(frozen=True, slots=True)
class DemoData:
    """Folders of drawn scenes: `train` has semantic label maps, `scenes` boxes and, for measuring alone, masks.

    On those of `test`, which nothing is trained on, students are measured.
    """

    train: Path
    scenes: Path
    test: Path


@dataclass(frozen=True, slots=True)
class DemoSegmenter:
    """The same trained network twice, each with its card beside it, for `smp:DIR` and for `onnx:FILE`; its encoder."""

    smp_folder: Path
    onnx_file: Path
    encoder_file: Path  # its encoder alone, in timm's names: where teacher and student start from
    mean_class_iou: float  # over scenes that it was not trained on
    export_difference: float  # largest |logit| between torch and onnxruntime


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the demo's segmenter is trained; the defaults take less than a minute of one core."""

    steps: int = 560
    batch: int = 8
    learning_rate: float = 8e-3
    seed: int = 0
    threads: int = 1  # fixed, as sums of gradients depend on it; more of them wait for each other on a busy machine


def make_demo_data(
    folder: Path, *, train: int = 200, scenes: int = 40, test: int = 30, size_hw: tuple[int, int] = (256, 256)
) -> DemoData:
    """Draws all scenes below `folder`, always the same ones."""
    from pseudolabel.pipelines.demo.scenes import write_dataset

    data = DemoData(folder / "train", folder / "scenes", folder / "test")
    write_dataset(data.train, train, _TRAIN_SEED, size_hw=size_hw)
    write_dataset(data.scenes, scenes, _SCENES_SEED, size_hw=size_hw)
    write_dataset(data.test, test, _TEST_SEED, size_hw=size_hw)
    return data


def train_demo_segmenter(
    data: DemoData, folder: Path, recipe: Recipe = Recipe(), report: Report | None = None
) -> DemoSegmenter:
    """Trains on `data.train`, saves `folder/segmenter/` and `folder/segmenter.onnx`, and checks that the two agree.

    Raises:
        MachineError: the exported network gives other logits than the trained one.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        network = _trained(*_read_labelled(data.train), recipe, report)
        return _saved(network, folder, *_read_labelled(data.scenes))
    finally:
        torch.set_num_threads(threads)


def _saved(network: Any, folder: Path, images: "np.ndarray", labels: "np.ndarray") -> DemoSegmenter:
    smp_folder, onnx_file = folder / "segmenter", folder / "segmenter.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(smp_folder)
    encoder = _save_encoder(network, folder / "encoder.safetensors")
    difference = _export(network, onnx_file, images[:2])
    for path in (smp_folder / "model.yaml", onnx_file.with_suffix(".yaml")):
        path.write_text(yaml.safe_dump(card(), sort_keys=False), encoding="utf-8")
    return DemoSegmenter(smp_folder, onnx_file, encoder, mean_class_iou(network, images, labels), difference)


def _save_encoder(network: Any, path: Path) -> Path:
    from safetensors.torch import save_file

    state = network.encoder.model.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def card() -> dict[str, Any]:
    """How the demo's network wants to be fed and read; pictures enter at their own size."""
    return {
        "name": "demo-segmenter",
        "task": "semantic-segmentation",
        "license": "Apache-2.0",
        "input": {"color": "rgb", "mean": list(MEAN), "std": list(STD), "size_rule": {"multiple": 32}},
        "output": {"kind": "logits", "align_corners": False},
        "ignore_index": 255,
        "classes": list(class_names()),
    }


def class_names() -> tuple[str, ...]:
    """The ground, then the classes of the scenes."""
    from pseudolabel.pipelines.demo.scenes import CLASSES

    return ("background", *CLASSES)


def build_network() -> Any:
    """A feature pyramid on a ResNet, half a million weights, all random: nothing is downloaded."""
    import segmentation_models_pytorch as smp

    return smp.FPN(
        encoder_name=f"tu-{ENCODER}",
        encoder_weights=None,
        classes=len(class_names()),
        decoder_pyramid_channels=64,
        decoder_segmentation_channels=32,
        decoder_dropout=0.0,
    )


def normalised(images: "np.ndarray") -> "Tensor":
    """uint8 pictures (n, h, w, 3) as the network's input (n, 3, h, w)."""
    import torch

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def mean_class_iou(network: Any, images: "np.ndarray", labels: "np.ndarray") -> float:
    """Mean over the classes, ground included, of the IoU of labels over all pixels of all pictures."""
    import numpy as np
    import torch

    count = len(class_names())
    confusion = np.zeros((count, count), dtype=np.int64)
    network.eval()
    with torch.inference_mode():
        for image, label in zip(images, labels, strict=True):
            found = network(normalised(image[None])).argmax(1)[0].numpy()
            confusion += np.bincount(label.ravel() * count + found.ravel(), minlength=count**2).reshape(count, count)
    shared = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - shared
    return float((shared[union > 0] / union[union > 0]).mean())


def _read_labelled(folder: Path) -> tuple["np.ndarray", "np.ndarray"]:
    """All pictures (n, h, w, 3) and label maps (n, h, w) of a drawn data set."""
    import numpy as np
    from PIL import Image

    names = [row["file_name"] for row in json.loads((folder / "instances.json").read_text())["images"]]
    images = np.stack([np.array(Image.open(folder / "images" / name)) for name in names])
    labels = [np.array(Image.open(folder / "labels" / Path(name).with_suffix(".png"))) for name in names]
    return images, np.stack(labels).astype(np.int64)


def _trained(images: "np.ndarray", labels: "np.ndarray", recipe: Recipe, report: Report | None) -> Any:
    """A network after `recipe.steps` steps of AdamW with one cycle of the learning rate."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(recipe.seed)
    network = build_network().to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.2
    )
    for step, (pixels, truth) in enumerate(_batches(images, labels, recipe), start=1):
        loss = F.cross_entropy(network(pixels.contiguous(memory_format=torch.channels_last)), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if report is not None:
            report(step, recipe.steps, float(loss.detach()))
    return network.eval()


def _batches(images: "np.ndarray", labels: "np.ndarray", recipe: Recipe) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Random crops, turned and mirrored."""
    import numpy as np
    import torch

    random = np.random.default_rng(recipe.seed)
    for _ in range(recipe.steps):
        crops = [_crop(images, labels, random) for _ in range(recipe.batch)]
        pixels, truth = (np.stack([crop[part] for crop in crops]) for part in (0, 1))
        yield normalised(pixels), torch.from_numpy(truth)


def _crop(
    images: "np.ndarray", labels: "np.ndarray", random: "np.random.Generator"
) -> tuple["np.ndarray", "np.ndarray"]:
    import numpy as np

    index = random.integers(len(images))
    y, x = (random.integers(side - CROP_PX + 1) for side in labels.shape[1:])
    turns, mirror = int(random.integers(4)), random.random() < 0.5
    parts = (stack[index, y : y + CROP_PX, x : x + CROP_PX] for stack in (images, labels))
    turned = [np.rot90(part, turns) for part in parts]
    pixels, truth = (np.ascontiguousarray(part[:, ::-1] if mirror else part) for part in turned)
    return pixels, truth


def _export(network: Any, path: Path, images: "np.ndarray") -> float:
    """Writes the network as ONNX with free batch, height and width; gives the largest difference of logits."""
    import contextlib
    import io

    import torch

    network = network.to(memory_format=torch.contiguous_format).eval()
    axes = {axis: torch.export.Dim(name) for axis, name in {0: "batch", 2: "height", 3: "width"}.items()}
    sample = normalised(images)
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter prints its steps
        torch.onnx.export(
            network,
            (sample,),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=(axes,),
        )
    return check_export(network, path, sample)


def check_export(network: Any, path: Path, sample: "Tensor") -> float:
    """The largest difference between the file's logits and the network's, also on sides that the export did not see.

    Raises:
        MachineError: it is more than rounding.
    """
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for probe in (sample, sample[:1, :, :192, :224]):
        with torch.inference_mode():
            expected = network(probe).numpy()
        worst = max(worst, float(abs(session.run(None, {"image": probe.numpy()})[0] - expected).max()))
    if not worst <= MAX_EXPORT_DIFFERENCE:
        raise MachineError(f"{path}: onnxruntime's logits differ from torch's by {worst:.2g}, the export is not usable")
    return worst
