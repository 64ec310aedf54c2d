import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.segmenters import reduce
from pseudolabel.segmenters.reduce import reduce_logits


def _plain(
    logits: torch.Tensor, size_hw: tuple[int, int], align_corners: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    upsampled = F.interpolate(logits[None].double(), size_hw, mode="bilinear", align_corners=align_corners)[0]
    top, label = upsampled.softmax(0).max(0)
    two_best = upsampled.topk(2, dim=0).values
    return label.numpy(), top.numpy() * 255, (two_best[0] - two_best[1]).numpy()


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(2, 24),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    align_corners=st.booleans(),
    on_device=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_reduction_equals_upsampling_everything(
    classes: int,
    grid: tuple[int, int],
    size_hw: tuple[int, int],
    spread: float,
    align_corners: bool,
    on_device: bool,
    seed: int,
) -> None:
    logits = torch.randn(classes, *grid, generator=torch.Generator().manual_seed(seed)) * spread
    if on_device:
        result = reduce._reduce_on_device(logits, size_hw, align_corners)
    else:
        result = reduce_logits(logits, size_hw, align_corners=align_corners)
    label, confidence, lead = _plain(logits, size_hw, align_corners)
    decided = lead > 1e-4 * spread
    np.testing.assert_array_equal(result.label_map[decided], label[decided])
    assert np.abs(result.confidence - confidence).max() <= 0.8  # rounding 0.5, dropped classes 0.25, float32


def test_a_runner_up_at_both_ends_wins_in_the_middle() -> None:
    logits = torch.tensor([[[4.0, 0.0]], [[3.2, 3.2]], [[0.0, 4.0]]])
    result = reduce_logits(logits, (1, 5), align_corners=True)
    assert result.label_map.tolist() == [[0, 1, 1, 1, 2]]


def test_confidence_is_the_softmax_of_the_upsampled_logits() -> None:
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
    result = reduce_logits(logits, (1, 3), align_corners=True)
    expected = [round(255 / (1 + np.exp(-gap))) for gap in (2.0, 1.0, 0.0)]
    assert result.confidence.tolist() == [expected]


def test_the_first_class_wins_a_tie() -> None:
    assert reduce_logits(torch.zeros(3, 2, 2), (4, 4), align_corners=False).label_map.max() == 0


def test_more_classes_than_a_label_map_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 255"):
        reduce_logits(torch.zeros(256, 1, 1), (1, 1), align_corners=False)


def test_fast_exponential_is_exact_to_a_millionth() -> None:
    values = -np.linspace(0, 20, 1001, dtype=np.float32)
    found = np.array([reduce._exp(value) for value in values])
    np.testing.assert_allclose(found, np.exp(values.astype(np.float64)), atol=1e-6)
