"""`workbench report`: a run, or several beside each other, as one HTML file; and a run's tables as CSV or Parquet."""

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

    Of several runs the page has headlines, comparison, problem by problem, curves and samples. It asks for nothing from
    anywhere, so it can be sent, archived and opened without a network. Runs are only read, and may be written
    meanwhile. Existing files are replaced.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(
            metavar="RUN [RUN ...]", help="Folders of runs; the first one is what the others are compared with."
        ),
    ]
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help="Write the page to this file.")] = None
    tables: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help="Write every table to this folder.")] = None
    format: Annotated[Literal["parquet", "csv"], tyro.conf.arg(help="Of the tables.")] = "parquet"


def report(arguments: Sequence[str]) -> int:
    """Write a run's report."""
    args = tyro.cli(ReportArguments, prog="workbench report", args=arguments)
    if not args.runs:
        raise InputError("Say which run: workbench report RUN --html FILE.")
    runs = [require_run(run) for run in args.runs]
    if len(runs) > 1 and args.tables is not None:
        raise InputError("--tables is for one run: name one, or leave it out.")
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

    reader = RunReader(runs[0])
    if args.html is not None:
        from workbench.reporting.report_page.page import write_page
        from workbench.reporting.report_page.several import write_comparison
        from workbench.views import RunView

        if len(runs) > 1:
            write_comparison([RunView(run) for run in runs], args.html)
        else:
            write_page(RunView(reader), args.html)
        print(f"{args.html}: {args.html.stat().st_size / 1e6:.1f} MB, opens in any browser.")
    if args.tables is not None:
        from workbench.reporting.report_page.tables import write_tables

        written = write_tables(reader, args.tables, args.format)
        print(f"{args.tables}: {len(written)} tables as {args.format}, explained in docs/run-folder.md.")
    return OK
