"""`pseudolabel run`."""

import json
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli import shared
from pseudolabel.cli.commands import own_command
from pseudolabel.cli.help import GroupedOption
from pseudolabel.cli.options import load_run_file
from pseudolabel.errors import ConfigError


@own_command(
    "run",
    click.Argument(["file"], type=click.Path(path_type=Path)),
    GroupedOption(
        ["--set", "settings"], multiple=True, value="SECTION.KEY=VALUE", limits=["may be repeated"],
        help="override one value of the file",
    ),
    GroupedOption(
        ["--rounds"], type=int, value="INT", help="rounds of self-training: the student is the next round's teacher"
    ),
    shared.dry_run_option(),
    GroupedOption(["--print-config"], is_flag=True, help="print the effective config and stop"),
    shared.overwrite_option(),
    *shared.engine_options(),
    shared.json_option(),
)  # fmt: skip
def run(
    file: Path,
    settings: tuple[str, ...],
    rounds: int | None,
    print_config: bool,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    from pseudolabel.pipelines.chain import parse_chain, plan_lines, run_chain, summary_line
    from pseudolabel.pipelines.runner import RunOptions

    engine = shared.engine_of(given)
    if not engine.wait:
        raise ConfigError("run goes from stage to stage and has to wait; to leave, put the command itself into sbatch")
    values = apply_settings(load_run_file(file), settings) | ({} if rounds is None else {"rounds": rounds})
    chain = parse_chain(values, where=str(file))
    if print_config:
        sections: dict[str, Any] = {"run": str(chain.run.root), "rounds": chain.rounds}
        sections |= {step.name: step.config.model_dump(mode="json") for step in chain.steps}
        shared.print_yaml(sections)
        return
    if dry_run:
        click.echo("\n".join(plan_lines(chain)))
        return
    summaries = []
    for summary in run_chain(chain, RunOptions(engine=engine, overwrite=overwrite)):
        summaries.append(summary)
        if not as_json:
            click.echo(summary_line(summary))
            for note in summary.get("notes", ()):
                click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json.dumps({"stages": summaries}))
    else:
        shared.tell_next("run", chain.run.root)


def apply_settings(values: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """The file's values with `section.key=value` put over them; the value is read as YAML.

    Raises:
        ConfigError: a setting without a dot or an equals sign.
    """
    from pseudolabel.yaml_file import parse_yaml  # YAML is a fifth of what `--help` takes

    result = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for setting in settings:
        path, equals, text = setting.partition("=")
        section, dot, key = path.partition(".")
        if path == "run" and equals:
            result["run"] = text
            continue
        if not (equals and dot and section and key):
            raise ConfigError(f"--set {setting!r}: expected SECTION.KEY=VALUE, such as fuse.ranking=bqr")
        section = section.replace("_", "-")
        existing = result.get(section)
        result[section] = {
            **(existing if isinstance(existing, dict) else {}),
            key: parse_yaml(text, where=f"--set {setting}"),
        }
    return result
