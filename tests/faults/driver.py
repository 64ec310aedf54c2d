"""A driver in a process of its own, as the command line starts it: `driver.py RUN ENGINE-OPTIONS KEY=VALUE ...`."""

import json
import sys
from pathlib import Path

from own_stage import NAME, own_config

from pseudolabel.cli.main import exit_codes
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage


def main() -> None:
    run, engine, *settings = sys.argv[1:]
    values = {key: json.loads(value) for key, _, value in (setting.partition("=") for setting in settings)}
    options = json.loads(engine)
    options["sbatch_args"] = tuple(options.get("sbatch_args", ()))
    with exit_codes():
        summary = run_stage(
            RunPaths(Path(run)), NAME, own_config(RunPaths(Path(run)), **values), RunOptions(EngineOptions(**options))
        )
        print(json.dumps(summary.as_dict()))


if __name__ == "__main__":
    main()
