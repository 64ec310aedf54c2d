"""What help says of every command: an example that can be typed, few options first, and all of it at once."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pseudolabel.cli.help import GROUPS
from pseudolabel.cli.main import main
from pseudolabel.cli.overview import overview
from pseudolabel.cli.versions import gpus
from pseudolabel.config import Config, option
from pseudolabel.pipelines.graph import COMMANDS, Configured, Tool, Trainer

# whatever a command works with; of trainers torch and what comes with it: their configs stand beside what reads tables
HEAVY = {"torch", "numpy", "pyarrow", "scipy", "onnxruntime", "numba", "matplotlib", "pandas", "PIL", "yaml"}


def _help(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=environment, terminal_width=100, prog_name="pseudolabel")


def _command(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_help_of_a_command_begins_with_an_example_and_fits_40_lines(name: str) -> None:
    lines = _help(name, "--help").output.splitlines()
    assert lines[2] == f"  pseudolabel {name} {COMMANDS[name].example}"
    assert len(lines) <= 40, "\n".join(lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_can_be_typed(name: str) -> None:
    context = _command(name).make_context(name, shlex.split(COMMANDS[name].example))
    assert context.params


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_once_in_the_whole_help(name: str) -> None:
    text = _help(name, "--help-all").output
    typed = [one.opts[0] for one in _command(name).params if isinstance(one, click.Option) and not one.hidden]
    shown = re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", text, re.MULTILINE)
    assert sorted(shown) == sorted([*typed, "--help"])


def test_the_other_options_stand_in_named_groups() -> None:
    first, whole = _help("infer-siseg", "--help").output, _help("infer-siseg", "--help-all").output
    assert [title for title in GROUPS.values() if f"\n{title}:\n" in whole] == list(GROUPS.values())
    assert [title for title in GROUPS.values() if f"\n{title}:\n" in first] == ["Options"]
    assert "--walk-steps" in whole
    assert "--walk-steps" not in first


def test_help_shows_choices_ranges_defaults_and_what_an_option_needs() -> None:
    text = " ".join(_help("infer-siseg", "--help-all").output.split())
    assert "--background semantic|constant" in text
    assert "[with --background constant; 0<x<1; default: 0.25]" in text
    assert "[with --walk-steps; 2<=x<=20; default: 5]" in text
    assert "--mirror/--no-mirror average the boundary with that of the mirrored image [default: on]" in text


def test_the_overview_lists_the_commands_in_groups_and_hides_what_people_do_not_type() -> None:
    text = _help("--help").output
    assert re.findall(r"^(\w+):$", text, re.MULTILINE)[1:] == ["Start", "Masks", "Train", "Look", "Use", "Advanced"]
    for name, entry in COMMANDS.items():
        assert (re.search(rf"^  {name} ", text, re.MULTILINE) is None) == entry.hidden, name
    assert COMMANDS["run-shard"].hidden


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    heavy = HEAVY
    code = (
        f"import sys; sys.argv = ['pseudolabel', {name!r}, '--help-all']\n"
        "from pseudolabel.cli.main import entry\n"
        "try:\n    entry()\n"
        f"finally:\n    print('imported', sorted({heavy} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "imported []"), done.stderr


def test_python_dash_m_is_the_command_line_and_tells_the_versions_that_decide_results() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pseudolabel", "--version"], capture_output=True, text=True, check=True
    )
    first, libraries, devices = done.stdout.splitlines()
    assert re.fullmatch(r"pseudolabel \d+\.\d+\.\d+", first)
    assert re.fullmatch(r"Python 3\.\d+\.\d+, torch \d\S+, onnxruntime\S* \d\S+", libraries)
    assert devices.startswith("NVIDIA GPUs: ")


def test_the_driver_s_own_list_names_the_gpus(tmp_path) -> None:
    for bus, model in (("0000:01:00.0", "NVIDIA L4"), ("0000:02:00.0", "NVIDIA A10G")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 93\n")
    assert gpus(tmp_path) == ["NVIDIA L4", "NVIDIA A10G"]
    assert gpus(tmp_path / "no driver") == []


class _Slow(Config):
    method: str = option("slow", "which", group="main")
    patience: int = option(3, "how long it waits", group="main")


class _Fast(Config):
    method: str = option("slow", "which", group="main")
    speed: float = option(1.0, "how fast it is", group="main")


def variants(values: dict[str, object]) -> type[Config]:
    """The options of the method that is named."""
    return _Fast if values.get("method") == "fast" else _Slow


@pytest.fixture
def racer(monkeypatch: pytest.MonkeyPatch) -> str:
    """A trainer whose options depend on its method."""
    entry = Trainer(
        section="Train",
        help="Race.",
        example="run",
        config=f"{__name__}:_Slow",
        function=f"{__name__}:variants",
        model="racer",
        version=1,
        variants=f"{__name__}:variants",
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[variants.__module__])
    monkeypatch.setitem(COMMANDS, "train-racer", entry)
    return "train-racer"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        pytest.param(["--method", "fast"], {}, id="command line"),
        pytest.param([], {"PSEUDOLABEL_TRAIN_RACER_METHOD": "fast"}, id="environment"),
        pytest.param(["--config", "FILE"], {}, id="run file"),
    ],
)
def test_a_method_has_its_own_options_wherever_it_is_named(
    racer: str, tmp_path, arguments: list[str], environment: dict[str, str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train-racer: {method: fast}\n")
    typed = [str(file) if one == "FILE" else one for one in arguments]
    assert "--speed" in _help(racer, *typed, "--help", **environment).output
    assert "--patience" in _help(racer, "--help").output
    printed = _help(racer, "run", *typed, "--speed", "2.5", "--print-config", **environment)
    assert printed.output == "method: fast\nspeed: 2.5\n"
    refused = _help(racer, "run", *typed, "--patience", "1", **environment)
    assert (refused.exit_code, "No such option" in refused.output) == (2, True)


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if isinstance(entry, Configured)])
def test_a_command_has_few_options_that_matter(name: str) -> None:
    entry = COMMANDS[name]
    assert isinstance(entry, Configured)
    extras = [field.json_schema_extra for field in entry.config_class({}).model_fields.values()]
    assert sum(isinstance(extra, dict) and extra.get("group") == "main" for extra in extras) <= 10


def test_an_option_may_be_set_by_a_variable_of_the_command_s_name() -> None:
    printed = _help("infer-siseg", "run", "--print-config", PSEUDOLABEL_INFER_SISEG_WALK_STEPS="7")
    assert "walk_steps: 7\n" in printed.output


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        pytest.param("infer", "there are infer-semantic, infer-colors, infer-teacher", id="a beginning"),
        pytest.param("evaluat", "did you mean 'evaluate'?", id="a slip"),
    ],
)
def test_a_command_that_is_not_there_names_those_that_are(typed: str, words: str) -> None:
    result = _help(typed)
    assert result.exit_code == 2
    assert all(name in result.output for name in re.findall(r"infer-[a-z]+|'\w+'", words))


def test_the_page_of_commands_is_made_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "commands.md"
    assert page.read_text(encoding="utf-8") == overview(), "python -m pseudolabel.cli.overview docs/commands.md"


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if not entry.hidden])
def test_every_command_ends_with_what_to_type_next(name: str) -> None:
    """A command that is named there is one of the table; what is in braces is the argument, or one of its options."""
    entry = COMMANDS[name]
    named = re.findall(r"pseudolabel ([a-z-]+)", f"{entry.next} {entry.next_bare}")
    assert entry.next == "{next}" or named
    assert set(named) <= COMMANDS.keys()
    places = set(re.findall(r"{(\w+)(?::\w+)?}", entry.next)) - {"asked"}
    assert isinstance(entry, Tool) or not places
    config_class = entry.config_class({}) if isinstance(entry, Tool) else Config
    assert all(place in config_class.model_fields or hasattr(config_class, place) for place in places - {"next"})
