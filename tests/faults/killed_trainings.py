"""Trainings that are killed at random moments until so many kills have landed; nothing may be lost by any of them.

    python tests/faults/killed_trainings.py 200 [--seed 0]

Every attempt is a fork of this program that gets SIGKILL at a moment drawn from the time that a whole training takes,
in the middle of a step, of a checkpoint or of the log. The next attempt has to go on from a checkpoint that is at least
as new as the newest one before, and where a training ends, its weights have to be those of one that nobody killed.
Prints a JSON object, and fails if something was lost.
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import toy

from pseudolabel.training.fit import FitConfig, fit

CONFIG = FitConfig(steps=60, batch_size=4, checkpoint_every=3, log_every=5)


@dataclass
class Tally:
    """What came of the attempts."""

    kills: int = 0
    trainings: int = 0  # that came to their end
    resumed: int = 0  # attempts that went on from a checkpoint
    steps_lost: int = 0  # behind the newest checkpoint that was on disk
    damaged: int = 0  # checkpoints that a kill has spoilt
    other_weights: int = 0  # trainings that ended elsewhere than the undisturbed one
    leftovers: int = 0  # temporaries beside a training that ended


def train(folder: Path) -> None:
    """The whole training or its rest; notes where it began, and its weights at the end."""
    method, data = toy.Toy(), toy.points()
    begun = fit(method, lambda places: data[list(places)], len(data), folder, CONFIG)
    weights = b"".join(value.numpy().tobytes() for value in method.state_dict().values())
    (folder / "ended.json").write_text(json.dumps({"begun": begun, "weights": weights.hex()}))


def attempt(folder: Path, killed_after_s: float | None) -> bool:
    """A fork that trains in this folder; whether the kill came before its end."""
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # the fork ends with it
        try:
            train(folder)
        finally:
            os._exit(0)
    if killed_after_s is not None:
        time.sleep(killed_after_s)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    found = (re.fullmatch(r"step-(\d+)\.ckpt", path.name) for path in folder.glob("*.ckpt"))
    return max((int(name[1]) for name in found if name), default=0)


def whole_training(folder: Path, tally: Tally, kills: int, lasts_s: float, chance: random.Random) -> str:
    """Train to the end through as many kills as come; the weights."""
    folder.mkdir()
    while True:
        had = newest(folder)
        killed = attempt(folder, chance.uniform(0, lasts_s) if tally.kills < kills else None)
        tally.kills += killed
        tally.resumed += bool(had)
        tally.damaged += len(list(folder.glob("*.damaged")))
        tally.steps_lost += max(0, had - newest(folder))
        if (folder / "ended.json").exists() and not killed:
            ended = json.loads((folder / "ended.json").read_text())
            tally.steps_lost += max(0, had - ended["begun"])
            tally.leftovers += len(list(folder.glob(".*.tmp")))
            tally.trainings += 1
            return str(ended["weights"])


def killed_trainings(kills: int, seed: int, folder: Path) -> Tally:
    """The tally after so many landed kills."""
    chance, tally = random.Random(seed), Tally()
    started = time.monotonic()
    wanted = whole_training(folder / "undisturbed", Tally(), 0, 0.0, chance)
    lasts_s = time.monotonic() - started
    while tally.kills < kills:
        weights = whole_training(folder / f"training-{tally.trainings}", tally, kills, lasts_s, chance)
        tally.other_weights += weights != wanted
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = killed_trainings(options.kills, options.seed, Path(folder))
    print(json.dumps(asdict(tally)))
    sys.exit(bool(tally.steps_lost or tally.damaged or tally.other_weights or tally.leftovers))


if __name__ == "__main__":
    main()
