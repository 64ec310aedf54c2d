"""What trainings that nobody works on any more left behind."""

from pathlib import Path

from pseudolabel.files import sweep_temporaries, temporary_name

_IN_USE = "in-use"


def mark_in_use(folder: Path) -> Path:
    """A file that says, as long as this process lives, that it works in this folder; to be removed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / temporary_name(_IN_USE)
    mark.touch()
    return mark


def sweep_abandoned(folders: Path, pattern: str) -> None:
    """Remove the files of this pattern from all folders in which no living process works."""
    for folder in [path for path in folders.glob("*") if path.is_dir()]:
        sweep_temporaries(folder)
        if not any(folder.glob(f".{_IN_USE}.*.tmp")):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
