"""Command line, notebook panels and app around spark_kernel. Importing it does no work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from spark_kernel import RunConfig
    from workbench.notebook.runs_table import RunsTable
    from workbench.notebook.workbench import Workbench

__all__ = ["new", "open", "runs"]


def open(run: str | Path | None = None) -> Workbench:
    """The notebook panels of a run folder, also while another process writes it: `workbench.open("runs/demo")`.

    Without a folder: the recorded run that ships with the package, to look at before anything was trained.

    A folder that is missing, damaged or newer than this program gives panels that say so. Opening a run twice in one
    process gives the same panels again.

    Raises:
        InputError: the extra `notebook` is not installed.
    """
    _require_notebook()
    from workbench.notebook.workbench import open_run

    if run is None:
        from workbench.recorded import recorded_run

        run = recorded_run()
    return open_run(run)


def new(source: str | Path | RunConfig, run: str | Path | None = None, **settings: Any) -> Workbench:
    """The notebook panels of a run to be; nothing is loaded or written until it is started there.

    A cell that is run again gives the panels of the run that it began, as long as this process holds it.

    Args:
        source: preset ("quickstart", "quickstart+policy-only"), YAML file or configuration.
        run: its folder; None: runs/NAME-TIME.
        settings: single settings with double underscores: `new("quickstart", rollout__samples=4)`.

    Raises:
        InputError: an unknown preset or setting, a value out of range, a folder that holds a run, or the extra
            `notebook` is not installed.
    """
    _require_notebook()
    from workbench.notebook.workbench import new_run

    return new_run(source, run, settings)


def runs(root: str | Path = "runs") -> RunsTable:
    """The runs of a folder as a table to sort, with their newest figures: select one to open, or several to compare.

    Raises:
        InputError: the extra `notebook` is not installed.
        RunFolderError: there is no such folder.
    """
    _require_notebook()
    from workbench.notebook.runs_table import RunsTable

    return RunsTable(root)


def _require_notebook() -> None:
    from importlib.util import find_spec

    from spark_kernel.errors import InputError

    needed = ("ipywidgets", "plotly", "anywidget", "itables", "markdown_it", "mdit_py_plugins", "nh3")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise InputError(
            f"The panels need {', '.join(missing)}: install the extra `notebook`, for example with "
            "pip install 'spark-workbench[notebook]'."
        )
