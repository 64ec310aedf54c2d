"""What labels and what trains says the same on a GPU as on the CPU, but for rounding.

PSEUDOLABEL_GPU_TESTS=cpu rehearses these tests on a machine without a GPU, with both sides on its CPU.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from pseudolabel.candidates import Candidate
from pseudolabel.condinst.config import CondInstConfig
from pseudolabel.condinst.mask_head import HeadShape, aligned_upsample, dynamic_masks
from pseudolabel.condinst.network import CondInst
from pseudolabel.losses import boxes as losses
from pseudolabel.pipelines.demo.scenes import draw_scene
from pseudolabel.segmenters.base import Photo, SemanticResult
from pseudolabel.segmenters.card import InputCard, ModelCard, OutputCard
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.torch_network import TorchNetwork
from pseudolabel.siseg.random_walk import walk_batch
from pseudolabel.students.data import collate
from pseudolabel.teachers.base import TeacherInput
from pseudolabel.teachers.condinst.infer import CondInstTeacher, InputSize
from pseudolabel.teachers.condinst.prototypes import PrototypeRule, Prototypes
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.infer import MalTeacher
from pseudolabel.teachers.mal.network import build_network
from tests.given import given_boxes
from tests.students.halves import new_student
from tests.students.scenes import sample

DEVICE = os.environ.get("PSEUDOLABEL_GPU_TESTS", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="GPU NOT TESTED: no CUDA device"),
]


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Convolutions in float32 proper, so that what is left is the order of sums."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _asked(count: int = 3) -> list[TeacherInput]:
    scenes = [draw_scene(seed, (128, 160)) for seed in range(count)]
    return [TeacherInput(scene.image, given_boxes(scene.boxes_xyxy())) for scene in scenes]


def _assert_same_candidates(first: Sequence[Sequence[Candidate]], second: Sequence[Sequence[Candidate]]) -> None:
    """The same objects' masks within one of 255, scores and boxes within rounding."""
    assert [len(image) for image in first] == [len(image) for image in second]
    assert sum(len(image) for image in first) > 0
    for one, other in zip(chain(*first), chain(*second), strict=True):
        assert one.annotation_id == other.annotation_id
        assert one.box_score == pytest.approx(other.box_score, abs=1e-3)
        difference = one.mask.probability.astype(int) - other.mask.probability.astype(int)
        assert np.abs(difference).max() <= 1


class _Classes(torch.nn.Module):
    """Logits of four classes on a grid of a quarter of the size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 5, stride=4, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 4, 3, padding=1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return 8 * self.layers(images)


def _label_maps(device: str) -> list[SemanticResult]:
    card = ModelCard(
        name="drawn",
        input=InputCard(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=(128, 160)),
        output=OutputCard(align_corners=False),
        classes=("a", "b", "c", "d"),
    )
    segmenter = NetworkSegmenter(TorchNetwork(_Classes(), device=device), card, batch_size=2)
    found = segmenter.predict([Photo(str(seed), (128, 160), draw_scene(seed, (128, 160)).image) for seed in range(3)])
    assert all(isinstance(one, SemanticResult) for one in found)
    return [one for one in found if isinstance(one, SemanticResult)]


def test_infer_semantic_gives_the_same_label_maps_but_where_two_classes_are_even() -> None:
    for one, other in zip(_label_maps("cpu"), _label_maps(DEVICE), strict=True):
        same = one.label_map == other.label_map
        assert same.mean() > 0.995  # on a GPU the network runs in half precision
        assert len(np.unique(one.label_map)) > 1
        difference = np.abs(one.confidence.astype(int) - other.confidence.astype(int))[same]
        assert np.percentile(difference, 99) <= 2


def test_the_box_conditioned_teacher_gives_the_same_candidates() -> None:
    torch.manual_seed(0)
    network, config = build_network("tiny", "none", width=16), MalConfig(backbone="tiny", width=16, crop_px=64)
    found = [MalTeacher(network, config, device=device, views=3).predict(_asked()) for device in ("cpu", DEVICE)]
    _assert_same_candidates(*found)


def test_a_condinst_teacher_gives_the_same_candidates() -> None:
    torch.manual_seed(0)
    shape = {"channels": 32, "convs": 1, "mask_branch_channels": 32, "backbone": "tiny", "backbone_weights": "none"}
    network, size = CondInst(CondInstConfig(**shape), 2), InputSize(short_px=128, long_px=256)
    found = [
        CondInstTeacher(network, size, device=device, candidates=2).predict(_asked()) for device in ("cpu", DEVICE)
    ]
    _assert_same_candidates(*found)


@pytest.mark.parametrize("model", ["condinst", "mask_rcnn", "query"])
def test_a_student_has_the_same_losses(model: str) -> None:
    student, batch = new_student(model).train(), collate([sample(seed) for seed in range(2)])
    found = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(3)
        losses_there = student.to(device).losses(batch.to(device))
        found.append({name: value.item() for name, value in losses_there.items()})
    if model == "mask_rcnn":  # draws its proposals at random, by each device's own numbers
        assert found[0].keys() == found[1].keys()
        assert all(np.isfinite(value) for value in found[1].values())
    else:
        assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-4)


def test_the_mask_head_gives_the_same_logits() -> None:
    shape = HeadShape(8, 8)
    arguments = (
        _drawn(1, shape.inputs, 40, 56),
        0.2 * _drawn(300, shape.parameters, seed=1),
        torch.zeros(300, dtype=torch.int64),
        _drawn(300, 2, seed=2).abs() * 200,
        torch.full((300,), 128.0),
    )
    expected = dynamic_masks(*arguments, shape)
    found = dynamic_masks(*(one.to(DEVICE) for one in arguments), shape)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-4)


def test_aligned_upsampling_gives_the_same_maps() -> None:
    maps = _drawn(2, 5, 31, 17)
    torch.testing.assert_close(aligned_upsample(maps.to(DEVICE), 4).cpu(), aligned_upsample(maps, 4))


def _pairwise(device: str) -> tuple[Tensor, Tensor]:
    images = _drawn(2, 3, 128, 160).abs().mul(80).clamp(0, 255).to(device)
    logits = _drawn(6, 32, 40, seed=1).to(device).requires_grad_()
    cells = torch.tensor([[0, 0, 20, 20], [10, 5, 40, 32], [3, 3, 9, 30]] * 2, device=device)
    image = torch.tensor([0, 0, 0, 1, 1, 1], device=device)
    valid = losses.valid_cells(torch.tensor([[128, 160], [100, 160]], device=device), (32, 40))
    edges = losses.color_edges(losses.lab_cells(images), valid, tau=0.1, theta=2.0, dilation=2)
    windows = losses.box_windows(cells, image, (32, 40), dilation=2)
    loss = losses.pairwise_loss(logits, windows, edges)
    loss.backward()
    assert logits.grad is not None
    return loss.detach().cpu(), logits.grad.cpu()


def test_the_pairwise_loss_and_its_gradient_are_the_same() -> None:
    (expected, slope), (found, found_slope) = _pairwise("cpu"), _pairwise(DEVICE)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    # a pair whose likeness lies on the threshold may fall on either side of it
    assert float((found_slope - slope).abs().gt(1e-6).float().mean()) < 1e-3


def test_the_random_walk_gives_the_same_maps() -> None:
    scores, boundary = _drawn(2, 4, 32, 40).abs(), torch.rand(2, 32, 40, generator=torch.Generator().manual_seed(1))
    expected = walk_batch(scores, boundary)
    torch.testing.assert_close(walk_batch(scores.to(DEVICE), boundary.to(DEVICE)).cpu(), expected, atol=1e-4, rtol=1e-3)


def test_prototypes_move_alike() -> None:
    cells, labels = torch.nn.functional.normalize(_drawn(400, 16), dim=1), torch.arange(400) % 2
    found = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        prototypes = Prototypes(2, 16, PrototypeRule(per_class=4)).to(device)
        prototypes.update(cells.to(device), labels.to(device))
        found.append(prototypes.nearest(cells.T.to(device)).cpu())
    assert torch.allclose(*found, atol=1e-5)
