"""The runs of a folder as a table to sort: open one of them, or put several beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from itables.widget import ITable

from spark_kernel.errors import InputError, SparkError
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState, list_runs
from workbench.notebook.job import Job
from workbench.notebook.keys import ROWS
from workbench.notebook.static_form import with_static_form
from workbench.notebook.style import note, panel, row
from workbench.views.headline import JUDGES, LOOP, SOLVED
from workbench.views.run_view import RunView

COLUMNS = ("run", "state", "rounds", "solved", "judges itself", "after the loop", "started (UTC)", "forked from")
FIGURES = (SOLVED, JUDGES, LOOP)
OPTIONS: dict[str, Any] = {
    "select": "multi",
    "paging": True,
    "pageLength": 12,
    "ordering": True,
    "order": [],
    "layout": {"topStart": None, "topEnd": "search", "bottomStart": "info", "bottomEnd": "paging"},
    "showIndex": False,
    "maxBytes": 0,
    "classes": "display compact nowrap",
    "style": "table-layout:auto;width:100%;margin:0;caption-side:top",
}


class RunsTable:
    """Runs directly below a folder, newest first, with the newest figures of their headlines (shares in percent).

    Raises:
        RunFolderError: there is no such folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self.frame = runs_frame(self.root)
        self.table = ITable(self.frame, caption=f"Runs in {self.root}", **OPTIONS)
        self.table.add_class(ROWS)
        self.button_open = widgets.Button(description="Open", icon="folder-open")
        self.button_compare = widgets.Button(description="Compare", icon="balance-scale")
        hint = "Select a run, or several: Ctrl and a click adds one." if len(self.frame) else "There are no runs here."
        self.said = widgets.HTML(note(hint))
        self.shown = widgets.VBox()
        self.button_open.on_click(lambda _: self._open())
        self.job = Job(self.button_compare, self.said, self._compare, "Comparing ...")
        self.widget = panel(self.table, row(self.button_open, self.button_compare), self.said, self.shown)
        self.widget.add_class("spark-wide")

    @property
    def chosen(self) -> list[Path]:
        """The folders of the selected runs, in the order of the table."""
        return [self.root / str(self.frame.iloc[place]["run"]) for place in sorted(self.table.selected_rows)]

    def _open(self) -> None:
        from workbench.notebook.workbench import open_run

        chosen = self.chosen
        if len(chosen) != 1:
            self.said.value = note("Select one run to open.", error=True)
            return
        self.said.value = note(f'The same panels in a cell of their own: workbench.open("{chosen[0]}")')
        self.shown.children = [open_run(chosen[0]).widget]

    def _compare(self) -> str:
        from workbench.figures import arms_figure, comparison_figure, difference_figure
        from workbench.notebook.compare import comparison_html
        from workbench.notebook.plotly_widget import FigureWidget
        from workbench.views import compare

        chosen = self.chosen
        if len(chosen) < 2:
            raise InputError("Select two runs or more; the first in the table is what the others are compared with.")
        found = compare([RunReader(path) for path in chosen])
        figures = [make(found) for make in (arms_figure, comparison_figure, difference_figure)]
        self.shown.children = [widgets.HTML(comparison_html(found)), *map(FigureWidget, figures)]
        return f"{' and '.join(found.names)}, on the held-out problems that they share."

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_static_form(self.widget._repr_mimebundle_(**kwargs), self.widget)


def runs_frame(root: Path) -> pd.DataFrame:
    """The table's rows. A run that cannot be read has a row that says why.

    Raises:
        RunFolderError: there is no such folder.
    """
    rows: list[tuple[str | float | None, ...]] = []
    for run in sorted(list_runs(root), key=lambda found: found.created, reverse=True):
        if run.state is RunState.UNREADABLE:
            rows.append((run.path.name, run.problem, None, None, None, None, "", ""))
            continue
        parent = f"{run.parent.run} after round {run.parent.round}" if run.parent else ""
        figures = _figures(run.path)
        rows.append((run.path.name, str(run.state), run.rounds, *figures, run.created[:16].replace("T", " "), parent))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _figures(path: Path) -> list[float | None]:
    """Newest value of each headline figure in percent; nothing where the run's evaluations cannot be read."""
    try:
        newest = {figure.name: figure.values[-1] for figure in RunView(path).headline()}
    except (SparkError, OSError):
        return [None] * len(FIGURES)
    values = [newest.get(name) for name in FIGURES]
    return [None if value is None else round(100 * value, 1) for value in values]
