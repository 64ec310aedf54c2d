"""What docs/results holds: each table says which script made it, at which commit, and the page is made of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = sorted((ROOT / "docs" / "results").glob("*.json"))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in TABLES])
def test_a_table_names_its_script_and_clean_commits(path: Path) -> None:
    table = json.loads(path.read_text(encoding="utf-8"))
    script = table["command"].split()[1]
    assert (ROOT / script).is_file(), "the script that made it is gone"
    commits = {table["commit"], *(row["commit"] for row in table["rows"] if "commit" in row)}
    assert all(re.fullmatch("[0-9a-f]{7,40}", one) for one in commits), f"not of a clean commit: {commits}"
    assert table["name"] == path.stem
    assert table["rows"]


def test_the_page_is_made_of_the_tables() -> None:
    code = "import sys; sys.path.insert(0, 'docs'); import render_results; sys.stdout.write(render_results.page())"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert made == (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), "type  make results"
