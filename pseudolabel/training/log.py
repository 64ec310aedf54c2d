"""The losses of a training as a table and for TensorBoard; a training that goes on adds to what is there."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pseudolabel.files import atomic_file, machine_faults_named


class TrainingLog:
    """`metrics.csv` and TensorBoard's files in a training's folder.

    Args:
        first: the step from which the training goes on; what an attempt wrote of later ones before it died is dropped.
        writes: False in all processes of a training but the first.
    """

    def __init__(self, folder: Path, first: int, *, writes: bool = True) -> None:
        self._path, self._names = folder / "metrics.csv", ["step"]
        self._board: SummaryWriter | None = None
        if writes:
            with machine_faults_named(self._path):
                self._go_on(folder, first)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            with machine_faults_named(self._path):
                self._board.close()

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        """A row of losses by name; a name that was not there before becomes a column."""
        if self._board is None:
            return
        with machine_faults_named(self._path):
            for name, value in losses.items():
                self._board.add_scalar(name, value, step)
            self._add_row({"step": step, **losses})

    def add_pictures(self, step: int, pictures: Callable[[], Mapping[str, UInt8[Tensor, "3 H W"]]]) -> None:
        """Pictures by name, for TensorBoard; made only where they are written."""
        if self._board is None:
            return
        shown = pictures()
        with machine_faults_named(self._path):
            for name, picture in shown.items():
                self._board.add_image(name, picture, step)

    def _go_on(self, folder: Path, first: int) -> None:
        rows = self._rows()
        kept = [row for row in rows if None not in row.values() and int(row["step"]) < first]
        self._names = list(kept[0]) if kept else self._names
        if len(kept) < len(rows):
            self._write(kept)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def _add_row(self, row: Mapping[str, Any]) -> None:
        new = [name for name in row if name not in self._names]
        if new or not self._path.exists():
            self._names += new
            self._write([*self._rows(), row])
            return
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._names).writerow(row)

    def _rows(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._names)
        writer.writeheader()
        writer.writerows(rows)
        with atomic_file(self._path) as file:
            file.write(text.getvalue().encode())
