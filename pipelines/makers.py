"""Which command makes a table, for messages that miss one."""

from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.pipelines.typed import typed_command

_MAKERS = {
    "manifest": "shard",
    "pseudo": "fuse",
    "semantic": "infer-semantic",
    "candidates/semantic": "infer-semantic",
    "candidates/colors": "infer-colors",
    "candidates/siseg": "infer-siseg",
    "candidates/teacher": "infer-teacher",
    "candidates/prompted": "infer-prompted",
}  # of tables by their default names


def maker_of(run: RunPaths, table: str) -> str:
    """What to type for a table that is missing or damaged: by the options that it had, where the run knows them."""
    for saved in saved_configs(run)[0]:
        if saved.table == table:
            return f"make it with  {typed_command(saved.stage, run, read_plan(run), saved.config)}"
    if table in _MAKERS:
        return f"make it with  pseudolabel {_MAKERS[table]} {run.typed}"
    other = f", or bring own masks by  {bringing(run, table)}" if table.startswith("candidates/") else ""
    return f"run the stage that writes {table} first{other}"


def bringing(run: RunPaths, table: str) -> str:
    """The line for masks of another program, whose file nobody wrote down."""
    return f"pseudolabel add-candidates {run.typed} --name {table.partition('/')[2]} --masks FILE"
