"""Why QMF's weights bring nothing, as a picture: the objects of drawn scenes whose fused masks they change most.

    python tests/benchmarks/qam_pictures.py --out docs/pictures/qam.jpg      # about five minutes of one core

A row is an object: the picture, its true mask, the proposals of the largest and of the smallest weight among ten, their
plain mean, QMF, and ten times the difference of these two. Beside it stand the two weights (an equal share is 0.1) and
the IoUs of plain mean and QMF with the truth. Network and rules are those of `qam_modules.py`.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from box_teachers import Picture, data_of
from PIL import Image, ImageDraw
from qam_modules import MIN_IOU, MOST, ROWS, SHORT_PX, Proposals, _ious, frozen, proposals

from pseudolabel.condinst.batch import STRIDE
from pseudolabel.fusion.fuse import passing
from pseudolabel.fusion.quality_aware import FusionRule, candidate_weights
from pseudolabel.rle import decode
from pseudolabel.teachers.condinst.infer import InputSize

TILE_PX, TEXT_PX, SHOWN, K = 110, 150, 5, 10


@dataclass(frozen=True)
class Case:
    """An object, what is shown of it, and by how much the weights changed its mask: over the cells of its box."""

    changed: float
    tiles: list[Image.Image]
    told: str


def cases(picture: Picture, found: Proposals, factor_xy: tuple[float, float]) -> Iterator[Case]:
    """The objects of a picture for which ten proposals speak."""
    rule = FusionRule("qmf")
    valid = (found.box_iou >= MIN_IOU) & (torch.arange(MOST) < K)
    kept = passing(found.box_score, valid, tau_box=rule.tau_box)
    weights = candidate_weights(found.box_score, found.box_iou, kept, rule)
    plain, weighted = (ROWS[name][0](found).soft for name in ("plain mean of 10", "QMF of 10"))
    ious = [_ious(picture, soft, factor_xy) for soft in (plain, weighted)]
    step = np.array(factor_xy) / STRIDE
    for place in (kept.sum(dim=1) == K).nonzero()[:, 0].tolist():
        box = picture.boxes_xyxy()[place]
        left, top = np.floor(box[:2] * step).astype(int).clip(min=0)
        right, bottom = np.ceil(box[2:] * step).astype(int)
        largest, smallest = weights[place, :K].argmax(), weights[place, :K].argmin()
        difference = (weighted[place] - plain[place]).abs()
        planes = [found.probability[place, largest], found.probability[place, smallest], plain[place], weighted[place]]
        area = tuple(box.round().astype(int).tolist())
        seen = [picture.pixels, decode(picture.objects[place].mask) * 255]
        tiles = [Image.fromarray(np.asarray(one, dtype=np.uint8)).crop(area) for one in seen]
        cut = [plane[top:bottom, left:right] for plane in (*planes, (10 * difference).clamp(max=1))]
        tiles += [Image.fromarray((255 * one).numpy().astype(np.uint8)) for one in cut]
        share = weights[place, [largest, smallest]].tolist()
        told = f"weights {share[0]:.3f}, {share[1]:.3f}\nIoU {ious[0][place]:.3f}, {ious[1][place]:.3f}"
        yield Case(float(difference[top:bottom, left:right].mean()), tiles, told)


def sheet(shown: list[Case]) -> Image.Image:
    """One row per object."""
    columns = len(shown[0].tiles)
    page = Image.new("RGB", (columns * TILE_PX + TEXT_PX, len(shown) * TILE_PX), "white")
    pen = ImageDraw.Draw(page)
    for row, one in enumerate(shown):
        for column, tile in enumerate(one.tiles):
            page.paste(tile.convert("RGB").resize((TILE_PX - 4, TILE_PX - 4)), (column * TILE_PX, row * TILE_PX))
        pen.text((columns * TILE_PX + 4, row * TILE_PX + TILE_PX // 3), one.told, fill="black")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="file of the trained network")
    parser.set_defaults(set="drawn", steps=500, seed=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, short_px = data_of("drawn"), SHORT_PX["drawn"]
    size = InputSize(short_px=short_px, long_px=2 * short_px)
    network = frozen(arguments, data, size)
    found = [one for picture in data.val for one in cases(picture, *proposals(network, picture, size))]
    changed = np.array([one.changed for one in found])
    print(f"{len(found)} objects; the weights change a cell's probability by {changed.mean():.4f} on average")
    sheet(sorted(found, key=lambda one: -one.changed)[:SHOWN]).save(arguments.out)


if __name__ == "__main__":
    main()
