"""`workbench report`: a run as one HTML file, and its tables as CSV or Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from spark_kernel.errors import InputError
from workbench.cli import OK
from workbench.commands import require_run


@dataclass(frozen=True)
class ReportArguments:
    """Write a run as one self-contained HTML file (figures, tables, samples, settings), its tables as files, or both.

    The page asks for nothing from anywhere, so it can be sent, archived and opened without a network. The run is only
    read, and may be written meanwhile. Existing files are replaced.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="The run's folder.")]
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help="Write the page to this file.")] = None
    tables: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help="Write every table to this folder.")] = None
    format: Annotated[Literal["parquet", "csv"], tyro.conf.arg(help="Of the tables.")] = "parquet"


def report(arguments: Sequence[str]) -> int:
    """Write a run's report."""
    args = tyro.cli(ReportArguments, prog="workbench report", args=arguments)
    run = require_run(args.run)
    if args.html is None and args.tables is None:
        raise InputError("Say what to write: --html FILE for the page, --tables DIR for the tables, or both.")
    if args.html is not None:
        if importlib.util.find_spec("plotly") is None:
            raise InputError('The page needs plotly: pip install "spark-workbench[notebook]".')
        if args.html.is_dir() or not args.html.parent.is_dir():
            raise InputError(f"{args.html} cannot be a file: name one in a folder that exists.")
    if args.tables is not None and args.tables.exists() and not args.tables.is_dir():
        raise InputError(f"{args.tables} is a file: name a folder for the tables.")
    from spark_kernel.runs.reader import RunReader

    reader = RunReader(run)
    if args.html is not None:
        from workbench.reporting.report_page.page import write_page
        from workbench.views import RunView

        write_page(RunView(reader), args.html)
        print(f"{args.html}: {args.html.stat().st_size / 1e6:.1f} MB, opens in any browser.")
    if args.tables is not None:
        from workbench.reporting.report_page.tables import write_tables

        written = write_tables(reader, args.tables, args.format)
        print(f"{args.tables}: {len(written)} tables as {args.format}, explained in docs/run-folder.md.")
    return OK
