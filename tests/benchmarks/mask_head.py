"""Speed of the dynamic mask head against the published arithmetic: one group of a grouped convolution per instance.

Reference: features repeated and relative coordinates built for every instance, three grouped 1x1 convolutions.
One thread, CPU time, in turns; the upsampling to stride 4 is timed by itself.
"""

import functools

import torch
from harness import interleaved, report, script_parser
from torch.nn import functional as F

from pseudolabel.condinst.mask_head import HeadShape, aligned_upsample, dynamic_masks

GRID_HW = (100, 152)
SEED = 0


def reference_masks(
    features: torch.Tensor, parameters: torch.Tensor, centres: torch.Tensor, sizes: torch.Tensor, shape: HeadShape
) -> torch.Tensor:
    n, (h, w) = len(parameters), features.shape[2:]
    y, x = torch.meshgrid(torch.arange(h) * 8.0 + 4, torch.arange(w) * 8.0 + 4, indexing="ij")
    places = torch.stack([x.flatten(), y.flatten()])
    relative = (centres[:, :, None] - places[None]) / sizes[:, None, None]
    inputs = torch.cat([relative, features.flatten(2).expand(n, -1, -1)], dim=1)
    layer = inputs.reshape(1, -1, h, w)
    pieces = parameters.split([*shape.weights, shape.channels, shape.channels, 1], dim=1)
    for index, (weight, bias) in enumerate(zip(pieces[:3], pieces[3:], strict=True)):
        width = bias.shape[1]
        layer = F.conv2d(layer, weight.reshape(n * width, -1, 1, 1), bias.reshape(-1), groups=n)
        layer = layer.relu() if index < 2 else layer
    return layer[0]


def reference_upsample(x: torch.Tensor) -> torch.Tensor:
    h, w = x.shape[2:]
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    x = F.interpolate(x, (2 * h + 1, 2 * w + 1), mode="bilinear", align_corners=True)
    return F.pad(x, (1, 0, 1, 0), mode="replicate")[:, :, : 2 * h, : 2 * w]


def ours_to_reference_order(parameters: torch.Tensor, shape: HeadShape) -> torch.Tensor:
    """The reference reads the coordinates before the features."""
    first = parameters[:, : shape.weights[0]].reshape(len(parameters), shape.channels, -1)
    swapped = torch.cat([first[:, :, -2:], first[:, :, :-2]], dim=2).flatten(1)
    return torch.cat([swapped, parameters[:, shape.weights[0] :]], dim=1)


def row(case: str, functions: dict, difference: float) -> dict:
    seconds = interleaved(functions, 5)
    ratio = seconds["reference"] / seconds["ours"]
    return {
        "case": case,
        "reference_s": seconds["reference"],
        "ours_s": seconds["ours"],
        "ratio": ratio,
        "max_abs_diff": difference,
    }


def head_row(count: int, shape: HeadShape) -> dict:
    generator = torch.Generator().manual_seed(SEED)
    features = torch.randn(1, shape.inputs, *GRID_HW, generator=generator)
    parameters = torch.randn(count, shape.parameters, generator=generator) * 0.2
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([GRID_HW[1] * 8.0, GRID_HW[0] * 8.0])
    sizes = torch.tensor([64.0, 128, 256, 512, 1024])[torch.arange(count) % 5]
    image_index = torch.zeros(count, dtype=torch.int64)
    other = ours_to_reference_order(parameters, shape)
    with torch.inference_mode():
        functions = {
            "reference": functools.partial(reference_masks, features, other, centres, sizes, shape),
            "ours": functools.partial(dynamic_masks, features, parameters, image_index, centres, sizes, shape),
        }
        difference = float((functions["reference"]() - functions["ours"]()).abs().max())
        return row(f"{count} instances, {GRID_HW[0]} x {GRID_HW[1]}, {shape.inputs} features", functions, difference)


def upsample_row(count: int) -> dict:
    x = torch.randn(1, count, *GRID_HW, generator=torch.Generator().manual_seed(SEED))
    with torch.inference_mode():
        functions = {
            "reference": functools.partial(reference_upsample, x),
            "ours": functools.partial(aligned_upsample, x, 2),
        }
        difference = float((functions["reference"]() - functions["ours"]()).abs().max())
        return row(f"upsampling by 2, {count} instances", functions, difference)


def main() -> None:
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    rows = [head_row(count, HeadShape(8, 8)) for count in (64, 150, 300)]
    rows += [head_row(64, HeadShape(16, 8)), upsample_row(64)]
    report("mask_head", rows, on="random features and parameters, 1 thread", seeds=[SEED])


if __name__ == "__main__":
    main()
