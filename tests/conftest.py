"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples every time; HYPOTHESIS_PROFILE=search looks for new ones
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real data and weights; tests that need it are skipped, loudly, where it is not there."""
    folder = Path(os.environ.get("PSEUDOLABEL_SHARED") or Path(__file__).parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"REAL DATA NOT TESTED: no folder {folder}; set PSEUDOLABEL_SHARED")
    return folder
