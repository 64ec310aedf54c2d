from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from pseudolabel.cli.main import main
from pseudolabel.cli.options import load_run_file, options_of, values_from
from pseudolabel.cli.run import apply_settings
from pseudolabel.config import Config, option, parse_config
from pseudolabel.errors import ConfigError, InputError


class Every(Config):
    """One field of every kind that a stage's config may have."""

    count: int = option(3, "a number", ge=0)
    share: float = option(0.5, "a share")
    mode: Literal["fast", "exact"] = option("exact", "a choice")
    flag: bool = option(True, "a switch")
    names: list[str] = option([], "names")
    file: Path | None = option(None, "a file")
    limit: float | None = option(None, "a limit")


def _print_config(config_file: Path | None, **given: object) -> None:
    click.echo(parse_config(Every, values_from("every", given, config_file), where="every").model_dump_json())


_CONFIG = click.Option(["--config", "config_file"], type=click.Path(path_type=Path))
every = click.Command("every", params=[*options_of(Every), _CONFIG], callback=_print_config)


def _run(*arguments: str, env: dict[str, str] | None = None) -> Every:
    result = CliRunner().invoke(every, list(arguments), auto_envvar_prefix="PSEUDOLABEL_EVERY", env=env)
    if result.exception:
        raise result.exception
    return Every.model_validate_json(result.output)


def test_every_kind_of_field_is_an_option() -> None:
    said = _run(
        *["--count", "7", "--share", "0.25", "--mode", "fast", "--no-flag", "--names", "a", "--names", "b"],
        *["--file", "x/y.json", "--limit", "1.5"],
    )
    assert said == Every(
        count=7, share=0.25, mode="fast", flag=False, names=["a", "b"], file=Path("x/y.json"), limit=1.5
    )
    assert _run() == Every()


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("every: {count: 1, share: 0.1, mode: fast}\n")
    said = _run(
        "--config", str(file), "--count", "9", env={"PSEUDOLABEL_EVERY_SHARE": "0.2", "PSEUDOLABEL_EVERY_COUNT": "8"}
    )
    assert (said.count, said.share, said.mode) == (9, 0.2, "fast")


def test_a_wrong_value_in_the_file_names_the_section_and_the_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("every: {cuont: 1}\n")
    with pytest.raises(ConfigError, match="every: unknown key 'cuont'; did you mean 'count'"):
        _run("--config", str(file))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("a: [1, 2", "not YAML", id="broken"),
        pytest.param("- 1\n- 2\n", "expected sections", id="a list"),
        pytest.param("", "expected sections", id="empty"),
    ],
)
def test_a_run_file_that_is_none_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises((ConfigError, InputError), match=words):
        load_run_file(tmp_path / "run.yaml")


def test_a_run_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml"):
        load_run_file(tmp_path / "absent.yaml")


def test_settings_override_values_of_the_file_and_leave_it_as_it_was() -> None:
    values = {"run": "a", "fuse": {"ranking": "bqr"}, "shard": None}
    result = apply_settings(values, ("run=b", "fuse.candidates=3", "shard.shards=2", "infer_semantic.flip=true"))
    assert result == {
        "run": "b",
        "fuse": {"ranking": "bqr", "candidates": 3},
        "shard": {"shards": 2},
        "infer-semantic": {"flip": True},
    }
    assert values == {"run": "a", "fuse": {"ranking": "bqr"}, "shard": None}


@pytest.mark.parametrize("setting", ["fuse", "fuse=3", "fuse.=3", ".x=3"])
def test_a_setting_of_another_form_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"SECTION\.KEY=VALUE"):
        apply_settings({}, (setting,))


def test_a_mistyped_command_names_the_nearest() -> None:
    result = CliRunner().invoke(main, ["infer-sematic"])
    assert result.exit_code == 2
    assert "did you mean 'infer-semantic'?" in result.output
