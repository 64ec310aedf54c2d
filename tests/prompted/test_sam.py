"""The five kinds of transformers' SAM family: built tiny, saved, and loaded by the real code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudolabel.errors import ConfigError, InputError, RejectError
from pseudolabel.prompted.base import PromptedMask, PromptedOptions, Prompts, deciding_files, open_prompted

pytest.importorskip("transformers")
from tiny import TINY, tiny_model

Folder = Callable[[str], Path]
BOXES = np.array(
    [[5, 5, 45, 35], [20.5, 10, 70, 70], [60, 30, 130, 70], [1, 1, 121, 71], [10, 20, 40, 60], [33, 3, 77, 47],
     [50, 50, 70, 70]],
    dtype=np.float64,
)  # fmt: skip


def _pixels(size_hw: tuple[int, int] = (77, 131)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def _bytes(masks: list[PromptedMask]) -> list[tuple[object, ...]]:
    return [
        (one.box_score, one.box_iou, one.reach_xyxy, one.mask.grid, one.mask.probability.tobytes()) for one in masks
    ]


@pytest.mark.parametrize("kind", list(TINY))
def test_a_box_gets_the_same_bytes_alone_and_among_seven(kind: str, tiny_folder: Folder) -> None:
    model = open_prompted(f"sam:{tiny_folder(kind)}", PromptedOptions(closer_px=32))
    model.probe()
    pixels = _pixels()
    together = model.predict(Prompts(pixels, BOXES))
    assert {one.given for one in together} == set(range(7))
    assert all(0 <= one.box_score <= 1 and 0 <= one.box_iou <= 1 for one in together)
    for place in (0, 3, 6):
        alone = model.predict(Prompts(pixels, BOXES[place : place + 1]))
        assert _bytes(alone) == _bytes([one for one in together if one.given == place])


@pytest.mark.parametrize("kind", list(TINY))
def test_masks_are_those_of_transformers_own_way(kind: str, tiny_folder: Folder) -> None:
    """Its processor puts image and boxes in the frame, its forward pass starts from pixels, its post-processing brings
    the logits to the image. SAM's does that in two interpolations, by way of its input's size: there the longer side
    has that size, so that the second one changes nothing."""
    model, image_processor = tiny_model(kind)
    pixels, box = (_pixels((39, 64)), BOXES[3] / 2) if kind in ("sam", "sam_hq") else (_pixels(), BOXES[3])
    processor = _processor(kind, image_processor)
    inputs = processor(images=pixels, input_boxes=[[box.tolist()]], return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"], multimask_output=False)
    sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
    (logits,) = processor.post_process_masks(output.pred_masks, *sizes, binarize=False)
    (found,) = open_prompted(f"sam:{tiny_folder(kind)}", PromptedOptions(views=1, closer_px=0)).predict(
        Prompts(pixels, box[None])
    )
    assert found.box_score == pytest.approx(float(output.iou_scores.clamp(0, 1)), abs=1e-5)
    left, top, right, bottom = (int(side) for side in found.mask.grid.extent_xyxy)
    theirs = logits[0, 0, top:bottom, left:right].sigmoid().numpy()
    ours = found.mask.probability.astype(np.float32) / 255
    assert theirs.std() > 0.02  # there is something to compare
    assert np.abs(theirs - ours).max() < 0.02


def _processor(kind: str, image_processor: object) -> object:
    import transformers

    name = {"sam": "Sam", "sam_hq": "SamHQ", "sam2": "Sam2", "edgetam": "Sam2", "sam3_tracker": "Sam3Tracker"}[kind]
    return getattr(transformers, f"{name}Processor")(image_processor)


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_all_masks_are_three_for_each_view(kind: str, tiny_folder: Folder) -> None:
    model = open_prompted(f"sam:{tiny_folder(kind)}", PromptedOptions(masks="all", views=2, closer_px=0))
    found = model.predict(Prompts(_pixels(), BOXES[3:4]))
    assert 3 < len(found) <= 6


def test_bf16_changes_the_masks_a_little(tiny_folder: Folder) -> None:
    prompts = Prompts(_pixels(), BOXES[3:4])
    options = {"views": 1, "closer_px": 0}
    (exact,) = open_prompted(f"sam:{tiny_folder('sam2')}", PromptedOptions(**options)).predict(prompts)
    (half,) = open_prompted(f"sam:{tiny_folder('sam2')}", PromptedOptions(**options, bf16=True)).predict(prompts)
    difference = np.abs(exact.mask.probability.astype(int) - half.mask.probability)
    assert difference.max() > 0
    assert difference.mean() < 16


def test_a_video_models_folder_is_read_as_its_image_model(tiny_folder: Folder, tmp_path: Path) -> None:
    folder = _copy(tiny_folder("sam2"), tmp_path, model_type="sam2_video")
    prompts = Prompts(_pixels(), BOXES)
    expected = open_prompted(f"sam:{tiny_folder('sam2')}", PromptedOptions()).predict(prompts)
    assert _bytes(open_prompted(f"sam:{folder}", PromptedOptions()).predict(prompts)) == _bytes(expected)


def test_every_file_that_decides_is_named(tiny_folder: Folder) -> None:
    files = deciding_files(f"sam:{tiny_folder('sam')}", None)
    assert set(files) == {"config.json", "preprocessor_config.json", "model.safetensors", "transformers"}
    assert "__version__" in files["transformers"].read_text()


def test_missing_weights_are_named(tiny_folder: Folder, tmp_path: Path) -> None:
    folder = _copy(tiny_folder("sam"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    gone = [name for name in weights if "iou_token" in name]
    save_file(
        {name: value for name, value in weights.items() if name not in gone},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(InputError, match=r"1 weights are missing: mask_decoder\.iou_token\.weight"):
        open_prompted(f"sam:{folder}", PromptedOptions())


def test_weights_that_may_hold_code_are_not_read(tiny_folder: Folder, tmp_path: Path) -> None:
    folder = _copy(tiny_folder("sam"), tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        deciding_files(f"sam:{folder}", None)


def test_a_name_of_the_hub_is_no_folder_and_the_message_says_what_to_type() -> None:
    with pytest.raises(InputError, match="hf download facebook/sam-vit-base --local-dir sam-vit-base"):
        deciding_files("sam:facebook/sam-vit-base", None)


def test_a_processor_of_another_size_is_refused(tiny_folder: Folder, tmp_path: Path) -> None:
    folder = _copy(tiny_folder("sam2"), tmp_path)
    said = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(said | {"size": {"height": 96, "width": 96}}))
    with pytest.raises(InputError, match=r"its processor makes \(96, 96\).*its model wants \(128, 128\)"):
        open_prompted(f"sam:{folder}", PromptedOptions()).probe()


@pytest.mark.parametrize(
    ("model_type", "message"),
    [("sam3", "finds concepts by words, not boxes"), ("bert", "no box-prompted model called 'bert'")],
)
def test_a_model_that_hears_no_boxes_is_refused(
    tiny_folder: Folder, tmp_path: Path, model_type: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        deciding_files(f"sam:{_copy(tiny_folder('sam'), tmp_path, model_type=model_type)}", None)


def test_weights_that_are_not_finite_are_found_by_the_probe(tiny_folder: Folder, tmp_path: Path) -> None:
    folder = _copy(tiny_folder("sam"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["mask_decoder.iou_token.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="not finite; are the weights damaged"):
        open_prompted(f"sam:{folder}", PromptedOptions()).probe()


def test_an_answer_that_is_not_finite_rejects_its_image(tiny_folder: Folder) -> None:
    model = open_prompted(f"sam:{tiny_folder('sam')}", PromptedOptions(closer_px=0))
    with torch.no_grad():
        model._network._model.mask_decoder.iou_token.weight.fill_(float("nan"))
    with pytest.raises(RejectError, match="non_finite"):
        model.predict(Prompts(_pixels(), BOXES))


def test_an_unknown_kind_of_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sam-onnx'"):
        open_prompted("sam-onx:folder", PromptedOptions())


def _copy(folder: Path, tmp_path: Path, **config: str) -> Path:
    copy = shutil.copytree(folder, tmp_path / "copy")
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(said | config))
    return copy
