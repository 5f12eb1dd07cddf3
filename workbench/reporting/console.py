"""The console and the look of tables that all commands share."""

from __future__ import annotations

import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PIPED_WIDTH = 130
"""Columns where the output is no terminal and has no width of its own."""


def make_console() -> Console:
    """A console on standard output: plain text of a fixed width where that is no terminal."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(file=sys.stdout, highlight=False, width=width)


def plain_table(title: str | None = None) -> Table:
    """A table without vertical lines."""
    # A title wider than its table would be broken into lines.
    width = len(title) + 2 if title else None
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, min_width=width
    )
