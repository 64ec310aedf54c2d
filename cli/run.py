"""`pseudolabel run`."""

import json
from pathlib import Path
from typing import Any

import click
import yaml

from pseudolabel.cli.options import load_run_file
from pseudolabel.cli.stages import engine_option, json_option, overwrite_option, summary_line
from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.engines.base import EngineOptions


@click.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one value of the file.")
@click.option("--rounds", type=int, help="Rounds of self-training: the student is the next round's teacher.")
@click.option("--print-config", is_flag=True, help="Print the effective sections and stop.")
@click.option("--dry-run", is_flag=True, help="Print what would run, on how much, and stop.")
@engine_option
@overwrite_option
@json_option
def run(
    file: Path,
    settings: tuple[str, ...],
    rounds: int | None,
    print_config: bool,
    dry_run: bool,
    engine: EngineOptions,
    overwrite: bool,
    as_json: bool,
) -> None:
    """All stages of a run FILE, in the order of the data's way; what is done already is not touched.

    \b
    run: runs/coco
    shard: {images: images, annotations: boxes.json, shards: 8}
    infer-semantic: {model: "onnx:deeplabv3.onnx"}
    fuse: {}
    evaluate: {ground_truth: instances.json}
    """
    from pseudolabel.pipelines.chain import parse_chain, plan_lines, run_chain
    from pseudolabel.pipelines.runner import RunOptions

    if not engine.wait:
        raise ConfigError("run goes from stage to stage and has to wait; to leave, put the command itself into sbatch")
    values = apply_settings(load_run_file(file), settings) | ({} if rounds is None else {"rounds": rounds})
    chain = parse_chain(values, where=str(file))
    if print_config:
        sections: dict[str, Any] = {"run": str(chain.run.root), "rounds": chain.rounds}
        sections |= {step.name: step.as_dict() for step in chain.steps}
        click.echo(yaml.safe_dump(sections, sort_keys=False), nl=False)
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


def apply_settings(values: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """The file's values with `section.key=value` put over them; the value is read as YAML.

    Raises:
        ConfigError: a setting without a dot or an equals sign.
    """
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
        result[section] = {**(existing if isinstance(existing, dict) else {}), key: yaml.safe_load(text)}
    return result
