import ast
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = {
    "pseudolabel": "pseudolabel",
    "cli": "pseudolabel.cli",
    "pipelines": "pseudolabel.pipelines",
    "data": "pseudolabel.data",
}


def _packages_on_disk() -> Iterator[str]:
    for folder, name in TOP.items():
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            parts = init.parent.relative_to(ROOT / folder).parts
            if not (folder == "pseudolabel" and parts and parts[0] in ("cli", "pipelines")):
                yield ".".join([name, *parts])


def test_the_packages_in_pyproject_are_those_on_the_disk() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(_packages_on_disk())


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        pytest.param("pseudolabel", ("pseudolabel.cli", "pseudolabel.pipelines", "click"), id="the library"),
        pytest.param("pipelines", ("pseudolabel.cli", "click"), id="the pipelines"),
    ],
)
def test_imports_run_from_cli_to_pipelines_to_library(folder: str, forbidden: tuple[str, ...]) -> None:
    files = [path for path in (ROOT / folder).rglob("*.py") if "cli" not in path.parts[len(ROOT.parts) :][1:2]]
    if folder == "pseudolabel":
        files = [path for path in files if path.relative_to(ROOT).parts[1] not in ("pipelines", "__main__.py")]
    wrong = {
        str(path.relative_to(ROOT)): name for path in files for name in _imports(path) if name.startswith(forbidden)
    }
    assert files
    assert wrong == {}


def test_help_is_instant_and_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['pseudolabel', '--help']\n"
        "from pseudolabel.cli.main import entry\n"
        "try:\n    entry()\n"
        "finally:\n    heavy = {'torch', 'numpy', 'pyarrow', 'scipy', 'pydantic'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    seconds: dict[str, list[float]] = {"import click": [], code: []}
    for _ in range(4):  # in turns: the machine may be busy with other things
        for what, taken in seconds.items():
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", what], capture_output=True, text=True, check=True)
            taken.append(time.perf_counter() - start)
    assert "infer-semantic" in done.stdout
    assert min(seconds[code]) < 3 * min(seconds["import click"])


def test_nothing_committed_names_this_machine() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    words = ["/" + "work/", "/" + "root/", "/opt/" + "pypi"]
    guilty = [
        name
        for name in files
        if (ROOT / name).is_file()
        and any(word in (ROOT / name).read_text(encoding="utf-8", errors="ignore") for word in words)
    ]
    assert guilty == []
