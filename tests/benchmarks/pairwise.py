"""Speed of the pairwise loss and of its targets against the arithmetic of the published implementation.

Reference: log-probabilities of both classes unfolded into eight full copies, log-sum-exp, autograd; targets from box
bitmaps at full resolution, unfolded colour differences and their exponential. One thread, CPU time, in turns.
"""

import functools

import numpy as np
import torch
from harness import interleaved, report, script_parser
from torch.nn import functional as F

from pseudolabel.losses import boxes as losses

IMAGES, INSTANCES, HEIGHT, WIDTH = 4, 64, 800, 1216
TAU, THETA, DILATION = 0.3, 2.0, 2
SEED = 0
RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
D65_WHITE = np.array([0.95047, 1.0, 1.08883])


def unfold_neighbours(x: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) to the eight dilated neighbours of every cell, (n, c, 8, h, w), zero beyond the border."""
    n, c, h, w = x.shape
    nine = F.unfold(x, 3, dilation=DILATION, padding=DILATION).view(n, c, 9, h, w)
    return torch.cat([nine[:, :, :4], nine[:, :, 5:]], dim=2)


def reference_loss(logits: torch.Tensor, box: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    inside, outside = F.logsigmoid(logits)[:, None], F.logsigmoid(-logits)[:, None]
    both_in = inside[:, :, None] + unfold_neighbours(inside)
    both_out = outside[:, :, None] + unfold_neighbours(outside)
    pair = -torch.logaddexp(both_in, both_out)[:, 0]
    weight = (similarity >= TAU).float() * box[:, None]
    return (pair * weight).sum() / weight.sum().clamp(min=1)


def reference_step(logits: torch.Tensor, box: torch.Tensor, similarity: torch.Tensor) -> tuple[torch.Tensor, ...]:
    leaf = logits.detach().requires_grad_()
    loss = reference_loss(leaf, box, similarity)
    loss.backward()
    return loss.detach(), leaf.grad


def our_step(
    logits: torch.Tensor, cells: torch.Tensor, image: torch.Tensor, edges: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    leaf = logits.detach().requires_grad_()
    windows = losses.box_windows(cells, image, tuple(logits.shape[1:]), dilation=DILATION)
    loss = losses.pairwise_loss(leaf, windows, edges)
    loss.backward()
    return loss.detach(), leaf.grad


def reference_lab(picture: torch.Tensor) -> torch.Tensor:
    """CIE-Lab of the pooled picture in NumPy's float64, as an image library does it."""
    rgb = np.asarray(F.avg_pool2d(picture[None], 4).byte()[0].permute(1, 2, 0)) / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ RGB_TO_XYZ.T / D65_WHITE
    bent = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * bent[..., 1] - 16, 500 * (bent[..., 0] - bent[..., 1]), 200 * (bent[..., 1] - bent[..., 2])])
    return torch.as_tensor(lab, dtype=torch.float32)[None]


def reference_targets(
    images: torch.Tensor, boxes: torch.Tensor, image_of: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Box masks through full bitmaps, and one similarity volume per instance."""
    masks, similar = [], []
    for index, picture in enumerate(images):
        lab = reference_lab(picture)
        difference = (lab[:, :, None] - unfold_neighbours(lab)).norm(dim=1)
        full_valid = torch.ones(1, 1, *images.shape[2:])
        valid = unfold_neighbours(full_valid[:, :, 2::4, 2::4])[:, 0]
        similarity = torch.exp(-difference / THETA) * valid
        for box in boxes[image_of == index].tolist():
            bitmap = torch.zeros(images.shape[2:])
            bitmap[int(box[1]) : int(box[3] + 1), int(box[0]) : int(box[2] + 1)] = 1
            masks.append(bitmap[2::4, 2::4])
            similar.append(similarity[0])
    return torch.stack(masks), torch.stack(similar)


def our_targets(images: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    grid_hw = (images.shape[2] // 4, images.shape[3] // 4)
    valid = losses.valid_cells(torch.tensor([images.shape[2:]] * len(images)), grid_hw)
    edges = losses.color_edges(losses.lab_cells(images), valid, tau=TAU, theta=THETA, dilation=DILATION)
    return losses.box_cells(boxes, grid_hw), edges


def drawn_case() -> tuple[torch.Tensor, ...]:
    """Smooth noisy images, and boxes that cover 4.7 % of their image on average."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(IMAGES, 3, HEIGHT // 32, WIDTH // 32, generator=generator) * 255
    images = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")
    images = (images + torch.rand(images.shape, generator=generator) * 8).clamp(0, 255)
    share = torch.rand(INSTANCES, generator=generator) * 0.094
    aspect = torch.exp(torch.rand(INSTANCES, generator=generator) - 0.5)
    width = (share * HEIGHT * WIDTH * aspect).sqrt().clamp(8, WIDTH - 1)
    height = (share * HEIGHT * WIDTH / aspect).sqrt().clamp(8, HEIGHT - 1)
    left = torch.rand(INSTANCES, generator=generator) * (WIDTH - 1 - width)
    top = torch.rand(INSTANCES, generator=generator) * (HEIGHT - 1 - height)
    boxes = torch.stack([left, top, left + width, top + height], dim=1)
    image_of = torch.arange(INSTANCES) // (INSTANCES // IMAGES)
    logits = torch.randn(INSTANCES, HEIGHT // 4, WIDTH // 4, generator=generator) * 3
    return images, boxes, image_of, logits


def main() -> None:
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    images, boxes, image_of, logits = drawn_case()
    box, similarity = reference_targets(images, boxes, image_of)
    cells, edges = our_targets(images, boxes)
    loss = {
        "reference": functools.partial(reference_step, logits, box, similarity),
        "ours": functools.partial(our_step, logits, cells, image_of, edges),
    }
    targets = {
        "reference": functools.partial(reference_targets, images, boxes, image_of),
        "ours": functools.partial(our_targets, images, boxes),
    }
    (value, gradient), (our_value, our_gradient) = loss["reference"](), loss["ours"]()
    rows = []
    for case, functions, difference in (
        (
            "loss and gradient",
            loss,
            max(float((value - our_value).abs()), float((gradient - our_gradient).abs().max())),
        ),
        ("targets", targets, float((losses.box_masks(cells, box.shape[1:]).float() - box).abs().max())),
    ):
        seconds = interleaved(functions, 5)
        rows.append(
            {
                "case": f"{case}, {INSTANCES} boxes, {HEIGHT // 4} x {WIDTH // 4} cells",
                "reference_s": seconds["reference"],
                "ours_s": seconds["ours"],
                "ratio": seconds["reference"] / seconds["ours"],
                "max_abs_diff": difference,
            }
        )
    report("pairwise", rows, on="drawn images, 1 thread", seeds=[SEED])


if __name__ == "__main__":
    main()
