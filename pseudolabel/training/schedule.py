"""The learning rate of every step."""

import math


def learning_rate_factor(step: int, *, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Share of the peak learning rate: a linear rise over the first `warmup` of the steps, then the fall.

    Half a cosine to 0, or `step`: a tenth from two thirds of the steps on and a hundredth from eight ninths on, as the
    1x schedule of detectors has it.
    """
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    if schedule == "step":
        return 0.1 ** ((3 * step >= 2 * steps) + (9 * step >= 8 * steps))
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
