"""A teacher's training that is killed goes on to the same weights, moving average and memory bank included."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = Path(__file__).with_name("killed.py")


@pytest.mark.parametrize("method", ["boxinst", "boxteacher", "boxseg", "sim"])
def test_a_training_ended_by_kill_9_goes_on_to_the_same_weights_as_an_undisturbed_one(tmp_path, method):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(_PROGRAM), str(tmp_path), method]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["killed"] == {"signal": signal.SIGKILL}
    assert found["undisturbed"]["first"] == 0
    assert found["resumed"]["first"] == 3
    assert found["resumed"]["sha256"] == found["undisturbed"]["sha256"]
    assert (found["undisturbed"]["tutors"] > 0) == (method in {"boxseg", "sim"})
