"""The entry: a group whose commands are imported when they are called, so that `--help` is instant."""

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, get_args

import click

from pseudolabel.errors import PseudolabelError, SignalStopError
from pseudolabel.optional import absence_named
from pseudolabel.pipelines.graph import COMMANDS, Configured, Section, find_command
from pseudolabel.registry import did_you_mean


class LazyGroup(click.Group):
    """Lists the table's commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = find_command(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, Configured):
            from pseudolabel.cli.commands import command_of

            return command_of(cmd_name, entry)
        module = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"pseudolabel.cli.{module}"), module)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and find_command(args[0]) is None:
            ctx.fail(f"no command {args[0]!r}{_instead(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        listed = {name: COMMANDS[name] for name in self.list_commands(ctx)}
        for section in get_args(Section):
            rows = [(name, entry.help) for name, entry in listed.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)


def _instead(typed: str) -> str:
    """The commands that begin as what was typed, or the nearest one."""
    begun = [name for name, entry in COMMANDS.items() if name.startswith(typed) and not entry.hidden]
    return f"; there are {', '.join(begun)}" if len(begun) > 1 else did_you_mean(typed, COMMANDS)


def _print_versions(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pseudolabel.cli.versions import versions_text

        click.echo(versions_text())
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "PSEUDOLABEL",
        "max_content_width": 110,
    },
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_versions,
    help="Show versions and the GPUs that are there, and exit.",
)  # fmt: skip
def main() -> None:
    """Boxes and pretrained semantic segmenters in, scored instance masks out.

    \b
    pseudolabel shard        runs/mine --images images/ --annotations boxes.json
    pseudolabel infer-colors runs/mine
    pseudolabel fuse         runs/mine
    pseudolabel picture      runs/mine

    COMMAND --help shows an example and the options that matter, COMMAND --help-all the rest. Every option can also be
    set by a variable, as PSEUDOLABEL_FUSE_KEEP_SCORE=0.7, and in a run file.
    """


def entry() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pseudolabel").setLevel(logging.INFO)
    with exit_codes():
        main.main(standalone_mode=False, prog_name="pseudolabel")


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Our own errors become one line and an exit code, any other keeps its traceback; SIGTERM unwinds as an error."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stop)
    try:
        with absence_named():
            yield
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("error: stopped by SIGINT; the same command goes on from here", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        _show_example(error)
        sys.exit(error.exit_code)
    except PseudolabelError as error:
        click.echo(f"error: {error}{_no_use(error.exit_code)}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _show_example(error: click.ClickException) -> None:
    """A call that works, after one that lacks something."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    name = context.info_name or "" if context else ""
    command = find_command(name)
    if command is not None and command.example:
        click.echo(f"For example:  pseudolabel {name} {command.example}", err=True)


def _no_use(exit_code: int) -> str:
    """What to know under torchrun, which starts again whatever failed: an error of usage or input stays the same."""
    left = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) - int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if exit_code != PseudolabelError.exit_code or left < 1:
        return ""
    return f"\n(torchrun may start this {left} times more, to the same end: stop it, and cure the fault first)"


def _stop(number: int, _: object) -> None:
    raise SignalStopError(signal.Signals(number))


if __name__ == "__main__":
    entry()
