"""What drivers that were killed left in a run: temporary files and folders, of dead processes of this host alone."""

from pathlib import Path

from pseudolabel.files import sweep_temporaries
from pseudolabel.pipelines.run.paths import RunPaths


def sweep_run(run: RunPaths) -> int:
    """Remove what killed drivers left in the folders in which a driver writes; how many there were.

    A table's own folder is swept by the stage that writes it.
    """
    folders = [run.root, run.root / "config", run.root / "pseudo", run.root / "models", *_notes(run)]
    return sum(sweep_temporaries(folder) for folder in folders)


def _notes(run: RunPaths) -> list[Path]:
    """The folders of notes about tables and attempts."""
    tops = [run.root / name for name in ("_known", "_seals", "_failures", "_crashes")]
    return [path for top in tops if top.is_dir() for path in (top, *(one for one in top.rglob("*") if one.is_dir()))]
