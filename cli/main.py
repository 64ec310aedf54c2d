"""The entry: a group whose commands are imported when they are called, so that `--help` is instant."""

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from pseudolabel import __version__
from pseudolabel.errors import PseudolabelError, SignalStopError
from pseudolabel.registry import did_you_mean

# name: (module:attribute, help in one line); a module is imported only when its command runs
COMMANDS: dict[str, tuple[str, str]] = {
    "shard": ("pseudolabel.cli.shard:shard", "Images and boxes into the manifest of a new run."),
    "infer-semantic": ("pseudolabel.cli.stages:infer_semantic", "A pretrained segmenter's label maps."),
    "train-siseg": ("pseudolabel.cli.train:train_siseg", "Learn displacement field and boundary from label maps."),
    "infer-siseg": ("pseudolabel.cli.stages:infer_siseg", "Instances out of label maps (SISeg)."),
    "infer-boundary": ("pseudolabel.cli.stages:infer_boundary", "Boundaries between things (SISeg), for fuse."),
    "infer-colors": ("pseudolabel.cli.stages:infer_colors", "Candidate masks from boxes and colours alone."),
    "infer-prompted": ("pseudolabel.cli.stages:infer_prompted", "Masks of SAM and its kind for every box."),
    "add-candidates": ("pseudolabel.cli.add_candidates:add_candidates", "Masks of another program, for fuse."),
    "train-teacher": ("pseudolabel.cli.train:train_teacher", "Learn masks from boxes alone."),
    "infer-teacher": ("pseudolabel.cli.stages:infer_teacher", "The teacher's candidate masks for every box."),
    "fuse": ("pseudolabel.cli.stages:fuse", "One scored mask per object out of all candidates."),
    "calibrate": ("pseudolabel.cli.calibrate:calibrate", "Learn what a score means from a small audited set."),
    "evaluate": ("pseudolabel.cli.evaluate:evaluate", "Mask IoU and AP against the truth, beside the box itself."),
    "train-student": ("pseudolabel.cli.train:train_student", "Learn a segmenter from pseudo labels and scores."),
    "predict": ("pseudolabel.cli.student:predict", "A trained student on any folder of images."),
    "export-model": ("pseudolabel.cli.student:export_model", "A trained student as ONNX or torch.export."),
    "picture": ("pseudolabel.cli.demo:picture", "Pictures of the pseudo labels, worst to best."),
    "run": ("pseudolabel.cli.run:run", "All stages of a run file."),
    "status": ("pseudolabel.cli.status:status", "What is done, missing, failed and rejected in a run."),
    "verify": ("pseudolabel.cli.status:verify", "Read every part of a run and check that nothing is lost."),
    "run-shard": ("pseudolabel.cli.run_shard:run_shard", "Some shards of a job: what a scheduler's task calls."),
    "demo": ("pseudolabel.cli.demo:demo", "Draw scenes, train a small segmenter, run the whole chain."),
}


class LazyGroup(click.Group):
    """Lists commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PSEUDOLABEL"},
)
@click.version_option(__version__, "--version", message="pseudolabel %(version)s")
def main() -> None:
    """Boxes and pretrained semantic segmenters in, scored instance masks out.

    \b
    pseudolabel shard          runs/coco --images images/ --annotations boxes.json --shards 8
    pseudolabel infer-semantic runs/coco --model onnx:deeplabv3.onnx
    pseudolabel fuse           runs/coco
    pseudolabel evaluate       runs/coco --ground-truth instances.json
    """


def entry() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pseudolabel").setLevel(logging.INFO)
    with exit_codes():
        main.main(standalone_mode=False)


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Our own errors become one line and an exit code, any other keeps its traceback; SIGTERM unwinds as an error."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stop)
    try:
        yield
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("error: stopped by SIGINT; the same command goes on from here", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PseudolabelError as error:
        click.echo(f"error: {error}{_no_use(error.exit_code)}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


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
