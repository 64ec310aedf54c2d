"""Trainings that are killed at random moments; `killed_trainings.py 200` does the same for longer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)
_PROGRAM = Path(__file__).with_name("killed_trainings.py")


def test_ten_kills_at_random_moments_lose_nothing_and_change_no_byte() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(_PROGRAM), "10"], capture_output=True, text=True, env=environment)
    tally = json.loads(done.stdout)
    assert tally["kills"] == 10
    assert tally["resumed"] > 0
    assert tally["trainings"] > 0
    assert [tally[lost] for lost in ("steps_lost", "damaged", "other_weights", "leftovers")] == [0, 0, 0, 0]
    assert done.returncode == 0, done.stderr
