"""The options of every table: what a run tells of how it was made."""

from pathlib import Path

from pseudolabel.pipelines.look.facts import repeat_commands
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.stage_config import SavedConfig, save_config
from pseudolabel.pipelines.status import begun_tables
from tests.look.made_runs import make_run, many


def test_every_table_of_one_stage_is_told_of_by_the_line_that_made_it(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": many(2)})
    for name, per_box in (("teacher", 5), ("second", 7)):
        config = {"name": name, "per_box": per_box}
        save_config(made.paths, SavedConfig("infer-teacher", f"candidates/{name}", "cpu", config, {}))
    lines = repeat_commands(made.paths, read_plan(made.paths))
    assert [line for line in lines if "infer-teacher" in line] == [
        f"pseudolabel infer-teacher {made.paths.typed} --name second --per-box 7",
        f"pseudolabel infer-teacher {made.paths.typed} --per-box 5",
    ]
    assert {"candidates/teacher", "candidates/second"} <= set(begun_tables(made.paths))
