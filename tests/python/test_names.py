"""The public names: which there are, and that importing the package costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pseudolabel

NAMES = {
    "Labels", "PseudolabelError", "Run", "SoftMask", "Student", "evaluate", "label_image", "load_segmenter",
    "write_candidates", "__version__",
}  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert set(pseudolabel.__all__) == NAMES
    assert set(dir(pseudolabel)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(pseudolabel, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Rum'"):
        pseudolabel.Rum  # noqa: B018


def test_type_checkers_are_told_the_same_names() -> None:
    stub = ast.parse(Path(pseudolabel.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    told = {
        alias.asname or alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    told |= {ast.unparse(node.target) for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert told == NAMES


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, pseudolabel\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pydantic', 'PIL', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
