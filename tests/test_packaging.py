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
            if not (folder == "pseudolabel" and parts and parts[0] in ("cli", "pipelines", "data")):
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


def _modules() -> dict[str, Path]:
    """Every module of the package by its installed name."""
    modules = {}
    for folder, name in TOP.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if not (
                folder == "pseudolabel" and parts[0] in ("cli", "pipelines", "data")
            ):  # links to the folders at the top
                modules[".".join([name, *parts]).removesuffix(".__init__")] = path
    return modules


def _arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each module imports, inside functions and for type checkers alone, too."""
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= (inner & modules.keys()) or {node.module}
        found[module] = (names & modules.keys()) - {module}
    return found


def _circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The names from which a way of arrows leads back to themselves, those on common ways together."""

    def reached(start: str) -> frozenset[str]:
        seen, waiting = set[str](), [start]
        while waiting:
            new = arrows.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return frozenset(seen)

    ways = {name: reached(name) for name in arrows}
    groups = {frozenset(other for other in ways[name] if name in ways[other]) for name in arrows if name in ways[name]}
    return sorted(sorted(group) for group in groups)


def _room(module: str) -> str:
    """The folder below `pseudolabel` or `pseudolabel.pipelines`, or the file that stands there by itself."""
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[1:2] == ["pipelines"] else 2])


@pytest.mark.parametrize(
    ("arrows", "circles"),
    [
        pytest.param({"a": {"b"}, "b": {"c"}, "c": set()}, [], id="a line"),
        pytest.param({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}, [["b", "c"]], id="two of four"),
    ],
)
def test_a_circle_of_arrows_is_found(arrows: dict[str, set[str]], circles: list[list[str]]) -> None:
    assert _circles(arrows) == circles


def test_an_import_inside_a_function_or_for_type_checkers_is_an_arrow(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from p.b import x\n")
    (tmp_path / "b.py").write_text("if TYPE_CHECKING:\n    from p import a\n")
    modules = {"p.a": tmp_path / "a.py", "p.b": tmp_path / "b.py"}
    assert _arrows(modules) == {"p.a": {"p.b"}, "p.b": {"p.a"}}


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = _modules()
    assert len(modules) > 100
    assert _circles(_arrows(modules)) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for module, names in _arrows(_modules()).items():
        rooms.setdefault(_room(module), set()).update(_room(name) for name in names)
    assert _circles({room: names - {room, "pseudolabel"} for room, names in rooms.items()}) == []


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
