"""Fixtures of the tests of `review`."""

import shutil
from pathlib import Path

import pytest

from pseudolabel.pipelines.api import Run
from tests.review.drawn_run import make_run


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """60 discs on ten images, fused; not to be written to."""
    return make_run(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def run(made_run: Run, tmp_path: Path) -> Run:
    """A run of its own for a test."""
    shutil.copytree(made_run.paths.root, tmp_path / "run")
    return Run(tmp_path / "run")
