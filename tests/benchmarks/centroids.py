"""Refinement of centroids against 300 plain bilinear steps: time, and the share of cells in the same cluster."""

import numpy as np
import torch
from harness import interleaved, report, script_parser
from scipy import ndimage

from pseudolabel.siseg.displacement import cluster_cells, refine_centroids, refine_centroids_batch

HEIGHT, WIDTH, OBJECTS, IMAGES, STEPS = 120, 160, 6, 6, 300


def noisy_field(seed: int, noise: float) -> np.ndarray:
    """Every cell points at the nearest of six centres, plus smooth noise of that many cells."""
    random = np.random.default_rng(seed)
    centres = random.uniform((0, 0), (HEIGHT, WIDTH), (OBJECTS, 2))
    cells = np.moveaxis(np.mgrid[:HEIGHT, :WIDTH], 0, -1)
    nearest = np.linalg.norm(cells[:, :, None] - centres, axis=-1).argmin(-1)
    smooth = ndimage.gaussian_filter(random.normal(size=(2, HEIGHT, WIDTH)), (0, 3, 3))
    return (np.moveaxis(centres[nearest] - cells, -1, 0) + noise * smooth / smooth.std()).astype(np.float32)


def plain(field: np.ndarray) -> np.ndarray:
    """c <- clip(c + D(c)) with the four bilinear weights, step by step."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    for _ in range(STEPS):
        y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
        y1, x1 = np.minimum(y0 + 1, HEIGHT - 1), np.minimum(x0 + 1, WIDTH - 1)
        v, u = y - y0.astype(np.float32), x - x0.astype(np.float32)
        upper = field[:, y0, x0] * (1 - v) * (1 - u) + field[:, y0, x1] * (1 - v) * u
        step = upper + field[:, y1, x0] * v * (1 - u) + field[:, y1, x1] * v * u
        y, x = np.clip(y + step[0], 0, HEIGHT - 1), np.clip(x + step[1], 0, WIDTH - 1)
    return np.rint(np.stack([y, x])).astype(np.int32)


def measure(noise: float) -> dict[str, object]:
    fields = [noisy_field(seed, noise) for seed in range(IMAGES)]
    same = [cluster_cells(f, plain(f)) == cluster_cells(f, refine_centroids(f)) for f in fields]
    pixel = [(plain(f) == refine_centroids(f)).all(axis=0) for f in fields]
    batch = torch.from_numpy(fields[0])[None]
    functions = {
        "reference": lambda: plain(fields[0]),
        "ours": lambda: refine_centroids(fields[0]),
        "torch": lambda: refine_centroids_batch(batch),
    }
    seconds = interleaved(functions, repeats=5)
    return {
        "case": f"noise {noise}",
        "reference_s": seconds["reference"],
        "ours_s": seconds["ours"],
        "torch_s": seconds["torch"],
        "ratio": seconds["reference"] / seconds["ours"],
        "same_cell": float(np.mean(pixel)),
        "same_cluster": float(np.mean(same)),
    }


if __name__ == "__main__":
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    rows = [measure(noise) for noise in (0.0, 0.25, 0.5, 1.0, 1.5)]
    report("centroids", rows, on=f"{IMAGES} fields of {HEIGHT}x{WIDTH} cells, {STEPS} steps", seeds=list(range(IMAGES)))
