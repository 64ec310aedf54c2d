"""The random walk of SISeg against its published form: eight squarings of the dense matrix.

The dense reference is run whole at 64 x 64; for larger maps a block row of one squaring is timed and multiplied, which
is said in the row. `max_abs_diff` is against stepping the sparse matrix 256 times in float64.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from harness import interleaved, report, script_parser
from scipy import ndimage, sparse

from pseudolabel.siseg.pairs import pair_offsets, path_cells
from pseudolabel.siseg.random_walk import walk, walk_batch

CASES = ((64, 5), (96, 5), (128, 20))
BLOCKS = 64  # a larger map's reference is one 64th of one squaring, times 64 times 8
SEED = 0


def scene(size: int, maps: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(SEED)
    smooth = ndimage.gaussian_filter(random.normal(size=(size, size)), 3)
    boundary = np.where(np.abs(smooth) < 0.15 * smooth.std(), 0.95, 0.05).astype(np.float32)
    scores = ndimage.gaussian_filter(random.normal(size=(maps, size, size)), (0, 4, 4))
    return (scores > scores.std()).astype(np.float32), boundary


def affinity(boundary: np.ndarray, radius: int = 5, exponent: float = 10) -> sparse.csr_matrix:
    """The symmetric matrix of section 1.6, pair by pair."""
    height, width = boundary.shape
    cells = np.arange(height * width).reshape(height, width)
    padded = np.pad(boundary, radius, constant_values=1.0)
    rows, columns, values = [cells.ravel()], [cells.ravel()], [np.ones(cells.size)]
    for offset in pair_offsets(radius):
        read = [
            padded[radius + y : radius + y + height, radius + x : radius + x + width] for y, x in path_cells(offset)
        ]
        weight = (1 - np.max(read, axis=0).astype(np.float64)) ** exponent
        there = np.pad(cells, radius)[radius + offset[0] :, radius + offset[1] :][:height, :width]
        rows += [cells.ravel(), there.ravel()]
        columns += [there.ravel(), cells.ravel()]
        values += [weight.ravel(), weight.ravel()]
    parts = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(parts, shape=(cells.size, cells.size))


def stepped(scores: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    matrix = affinity(boundary)
    normalised = sparse.diags(1 / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix
    x = (scores * (1 - boundary)).reshape(len(scores), -1).T.astype(np.float64)
    for _ in range(256):
        x = normalised @ x
    return x.T.reshape(scores.shape)


def dense(scores: np.ndarray, boundary: np.ndarray) -> tuple[Callable[[], object], float]:
    """What to time of the reference, and how many times that the whole of it takes."""
    matrix = torch.from_numpy(affinity(boundary).astype(np.float32).toarray())
    transition = matrix / matrix.sum(dim=0)
    start = torch.from_numpy((scores * (1 - boundary)).reshape(len(scores), -1))

    def whole() -> torch.Tensor:
        power = transition
        for _ in range(8):
            power = power @ power
        return start @ power

    if boundary.shape[0] <= 64:
        return whole, 1.0
    block = transition[: len(transition) // BLOCKS]
    return lambda: block @ transition, 8.0 * BLOCKS


def measure(size: int, maps: int) -> dict[str, object]:
    scores, boundary = scene(size, maps)
    reference, times = dense(scores, boundary)
    on_torch = [torch.from_numpy(array)[None] for array in (scores, boundary)]
    functions = {
        "reference": reference,
        "ours": lambda: walk(scores, boundary),
        "torch": lambda: walk_batch(on_torch[0], on_torch[1]),
    }
    seconds = interleaved(functions, repeats=1 if times == 1 else 3)
    exact = stepped(scores, boundary)
    return {
        "case": f"{size}x{size}, {maps} maps",
        "reference_s": times * seconds["reference"],
        "reference_extrapolated": times > 1,
        "ours_s": seconds["ours"],
        "torch_s": seconds["torch"],
        "ratio": times * seconds["reference"] / seconds["ours"],
        "ratio_torch": times * seconds["reference"] / seconds["torch"],
        "max_abs_diff": float(np.abs(walk(scores, boundary) - exact).max()),
    } | gpu_seconds(on_torch)


def gpu_seconds(arrays: list[torch.Tensor]) -> dict[str, object]:
    """The batched walk on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return {}
    scores, boundary = (array.cuda() for array in arrays)
    walk_batch(scores, boundary)
    torch.cuda.synchronize()
    start = time.perf_counter()
    walk_batch(scores, boundary)
    torch.cuda.synchronize()
    return {"gpu_s": time.perf_counter() - start}


if __name__ == "__main__":
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    report("random_walk", [measure(*case) for case in CASES], on="drawn boundaries, radius 5, T^256", seeds=[SEED])
