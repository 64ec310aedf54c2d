"""`pseudolabel` as a program that is killed: `KILL_RANK` sends itself SIGKILL after step `KILL_STEP`, once."""

import os
import signal

from pseudolabel.cli.main import entry
from pseudolabel.students.method import StudentMethod


def kill_once() -> None:
    real = StudentMethod.after_step

    def after_step(self: StudentMethod, step: int) -> None:
        real(self, step)
        if step == int(os.environ["KILL_STEP"]):
            os.kill(os.getpid(), signal.SIGKILL)

    StudentMethod.after_step = after_step  # type: ignore[method-assign]  # where the kill falls


if __name__ == "__main__":
    chosen = os.environ.get("KILL_RANK")
    if chosen is not None and (chosen, "0") == (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]):
        kill_once()
    entry()
