"""Which command makes a table, for messages that miss one."""

from pseudolabel.pipelines.run.paths import RunPaths

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
    """What to type for a table that is not there."""
    maker = _MAKERS.get(table)
    return f"make it with  pseudolabel {maker} {run.typed}" if maker else f"run the stage that writes {table} first"
