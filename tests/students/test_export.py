"""Exported students say what the students say."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, box_iou

from pseudolabel.condinst.mask_head import aligned_upsample
from pseudolabel.errors import ConfigError, InputError, MachineError
from pseudolabel.students import export
from pseudolabel.students.base import make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.export import OUTPUTS, export_onnx, export_torch, graph_of
from pseudolabel.students.save import TrainedStudent, load_student, save_student
from pseudolabel.students.suppression import greedy

from .scenes import sample

CATEGORIES = ({"id": 4, "name": "disc"}, {"id": 9, "name": "bar"})


def trained(name: str, **changes) -> TrainedStudent:
    torch.manual_seed(2)
    shape = {"model": name, "backbone": "tiny", "width": 40, "convs": 1, "detections": 10, "least_score": 0.0}
    student = make_student(StudentConfig(**(shape | changes)), 2).eval()
    return TrainedStudent(student, CATEGORIES, 96)


def seen(scores, masks: torch.Tensor) -> torch.Tensor:
    """Outputs that `predict` would report: those with a score and a mask."""
    upsampled = aligned_upsample(masks.logit(eps=1e-6)[None], 4)[0]
    return (upsampled > 0).flatten(1).any(dim=1) & (torch.as_tensor(scores) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["condinst", "query"])
def test_onnx_runtime_gives_the_graph_s_outputs(name, tmp_path):
    import onnxruntime

    path = tmp_path / "student.onnx"
    assert export_onnx(trained(name), path) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = sample(0).image[None].float()
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"image": image.numpy()}), strict=True))
    wanted = trained(name).student.predict([sample(0).image])[0]
    real = seen(found["scores"], torch.from_numpy(found["masks"])).numpy()
    assert int(real.sum()) == len(wanted.scores) > 3
    np.testing.assert_allclose(found["scores"][real], wanted.scores.numpy(), atol=1e-4)
    np.testing.assert_allclose(found["boxes"][real], wanted.boxes.numpy(), atol=1e-2)
    assert yaml.safe_load(path.with_suffix(".yaml").read_text())["categories"] == list(CATEGORIES)


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def half(graph, probe, file, **_):
    Path(file).write_bytes(b"half")


@pytest.mark.parametrize("fault", ["differs", "full"])
def test_a_graph_that_cannot_be_written_leaves_the_one_before(fault, tmp_path, monkeypatch):
    path = tmp_path / "student.onnx"
    path.write_bytes(b"before")
    monkeypatch.setattr(torch.onnx, "export", full if fault == "full" else half)
    monkeypatch.setattr(export, "largest_difference", lambda *_: 0.5)
    with pytest.raises(MachineError, match=r"cannot write .*no space left" if fault == "full" else "differ from torch"):
        export_onnx(trained("condinst"), path)
    assert [one.name for one in tmp_path.iterdir()] == ["student.onnx"]
    assert path.read_bytes() == b"before"


@pytest.mark.slow
def test_a_torch_export_gives_the_graph_s_outputs(tmp_path):
    path = tmp_path / "student.pt2"
    student = trained("condinst")
    export_torch(student, path)
    image = sample(1).image[None].float()
    found = torch.export.load(path).module()(image)
    for one, other in zip(found, graph_of(student.student, 96)(image), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["condinst", "query"])
def test_the_graph_finds_what_predict_finds(name):
    student = trained(name).student
    image = sample(0).image
    wanted = student.predict([image])[0]
    with torch.no_grad():
        boxes, labels, scores, masks = graph_of(student, 96)(image[None].float())
    real = seen(scores, masks)
    assert int(real.sum()) == len(wanted.scores) > 3
    torch.testing.assert_close(scores[real], wanted.scores, atol=1e-4, rtol=1e-4)
    assert torch.equal(labels[real], wanted.labels)
    torch.testing.assert_close(boxes[real], wanted.boxes.float(), atol=1e-2, rtol=1e-3)
    assert masks.shape == (10, 24, 24)


def test_parallel_suppression_is_greedy_suppression():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        corner, side = torch.rand(80, 2, generator=generator) * 30, 10 + torch.rand(80, 2, generator=generator) * 10
        boxes, label = torch.cat([corner, corner + side], dim=1), torch.randint(0, 2, (80,), generator=generator)
        score = torch.linspace(1, 0.1, 80)
        wanted = torch.zeros(80, dtype=torch.bool)
        wanted[batched_nms(boxes, score, label, 0.6)] = True
        assert torch.equal(greedy(box_iou(boxes, boxes), label, limit=0.6), wanted)


def test_a_side_that_is_no_multiple_of_32_is_refused():
    with pytest.raises(ConfigError, match="multiple of 32"):
        graph_of(trained("condinst").student, 100)


def test_the_graph_of_mask_rcnn_finds_what_torchvision_s_steps_find():
    student = trained("mask_rcnn", detections=30).student
    image = sample(0).image
    with torch.no_grad():
        boxes, labels, scores, masks = graph_of(student, 96)(image[None].float())
        features = student.pyramid(image[None].float())
        proposals, _ = student.proposals(ImageList(image[None].float(), [(96, 96)]), features)
        wanted = student.heads(features, proposals, [(96, 96)])[0][0]
    assert len(wanted["scores"]) == len(scores) == 30
    torch.testing.assert_close(scores, wanted["scores"], atol=1e-5, rtol=1e-4)
    assert torch.equal(labels, wanted["labels"] - 1)
    torch.testing.assert_close(boxes, wanted["boxes"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(masks, wanted["masks"][:, 0], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_onnx_runtime_gives_mask_rcnn_s_boxes_and_masks(tmp_path):
    path = tmp_path / "student.onnx"
    assert export_onnx(trained("mask_rcnn"), path) < 1e-4
    sidecar = yaml.safe_load(path.with_suffix(".yaml").read_text())
    assert sidecar["mask_frame"] == "box"


def test_a_saved_student_predicts_the_same(tmp_path):
    one = trained("condinst")
    path = tmp_path / "student.safetensors"
    save_student(path, one.student, one.student.config, CATEGORIES, image_px=96, about={"note": "x"})
    other = load_student(path)
    assert (other.categories, other.image_px) == (CATEGORIES, 96)
    first, second = (model.student.predict([sample(0).image])[0] for model in (one, other))
    assert torch.equal(first.masks, second.masks)


def test_weights_with_another_config_are_refused(tmp_path):
    one = trained("condinst")
    path = tmp_path / "student.safetensors"
    save_student(path, one.student, one.student.config, CATEGORIES, image_px=96, about={})
    config = path.with_suffix(".yaml")
    config.write_text(config.read_text().replace("model: condinst", "model: query"))
    with pytest.raises(InputError, match="another network"):
        load_student(path)
