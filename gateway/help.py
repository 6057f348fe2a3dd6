"""Help texts without the names of Python types."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command whose help shows only the metavar beside each argument and option, and nothing beside a flag."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See ``click.Command.get_params``."""
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """The same for a command that has commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See ``click.Command.get_params``."""
        return _plain(super().get_params(ctx))


def _plain(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperArgument):
            # Typer writes the type beside an argument's metavar, not in its place as it does for options
            param.display_type_rich = lambda ctx: ""  # type: ignore[method-assign]
        elif param.is_flag:
            param.metavar = ""
    return params


def examples(*lines: str) -> str:
    """Return what ends a command's help: lines that work as they stand."""
    return "\n\n".join(["Examples:", *lines])
