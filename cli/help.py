"""How help looks: an example first, then the few options that matter; `--help-all` lists the rest in groups."""

from collections.abc import Sequence
from typing import Any

import click

GROUPS = {
    "main": "Options",
    "more": "More",
    "paper": "Variants of the papers",
    "machine": "Where it runs, and what it prints",
}
_WIDEST = 28  # of the left column; longer names have a line of their own


class GroupedOption(click.Option):
    """An option that knows in which group of the help it stands.

    Args:
        group: a key of `GROUPS`.
        value: what is shown for its value, such as `a|b|c`.
        limits: what is shown of its default and range.
    """

    def __init__(self, *args: Any, group: str = "main", value: str = "", limits: Sequence[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.group, self.value, self.limits = group, value, tuple(limits)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or not (self.value or self.limits):
            return record
        names = "/".join([self.opts[0], *self.secondary_opts])
        limits = f"  [{'; '.join(self.limits)}]" if self.limits else ""
        return f"{names} {self.value}".rstrip(), f"{self.help}{limits}"


class HelpCommand(click.Command):
    """A command whose help begins with an example.

    Args:
        example: the arguments of a call.
    """

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.params.append(_help_all_option(hidden=not self._further()))

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.example:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write(f"{' ' * formatter.current_indent}{ctx.command_path} {self.example}\n")
        super().format_help_text(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group, title in GROUPS.items():
            if group != "main" and not ctx.meta.get("help_all"):
                continue
            records = [record for one in self._of(ctx, group) if (record := one.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=_WIDEST)

    def _of(self, ctx: click.Context, group: str) -> list[click.Option]:
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        return [one for one in options if getattr(one, "group", "main") == group]

    def _further(self) -> bool:
        return any(getattr(one, "group", "main") != "main" for one in self.params)


def _help_all_option(*, hidden: bool) -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            ctx.meta["help_all"] = True
            click.echo(ctx.get_help())
            ctx.exit()

    return click.Option(
        ["--help-all"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        hidden=hidden,
        help="Show the other options, too, in groups.",
    )
