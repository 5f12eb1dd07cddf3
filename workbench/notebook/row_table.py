"""A table of rows of which one is selected (itables, its scripts travelling with the widget, nothing from the net)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from itables.widget import ITable

from workbench.notebook.keys import ROWS

MOST_ROWS = 500
"""Rows that are handed to the browser; filters and search look at all of them."""
FIRST, OTHER = 64, 22
"""Characters of a cell in the first and in other columns; the whole text stands in the detail below."""
PAGE = 8
"""Rows of a page."""
OPTIONS: dict[str, Any] = {
    "select": "single",
    "paging": True,
    "pageLength": PAGE,
    "warn_on_undocumented_option": False,  # of displayStart, which DataTables knows
    "ordering": False,
    "layout": {"topStart": None, "topEnd": None, "bottomStart": "info", "bottomEnd": "paging"},
    "showIndex": False,
    "maxBytes": 0,
    "classes": "display compact nowrap",
    "style": "table-layout:auto;width:100%;margin:0;caption-side:top",
}
"""Filters and search are ours, above the table, because they look at all rows."""


class RowTable:
    """Rows by id. `selected` is the id of the selected row; it stays selected when rows change, as long as it is there.

    Args:
        columns: names, in order.
        caption: what the rows are, for a screen reader, too.
        on_select: called with the id when somebody selects a row.
    """

    def __init__(self, columns: Sequence[str], caption: str, on_select: Callable[[str], None]) -> None:
        self._columns = list(columns)
        self._on_select = on_select
        self._ids: list[str] = []
        self._shown: object = None
        self._quiet = False
        self.selected: str | None = None
        self.widget = ITable(pd.DataFrame(columns=self._columns), caption=caption, **OPTIONS)
        self.widget.add_class(ROWS)
        self.widget.observe(self._picked, "selected_rows")

    @property
    def ids(self) -> list[str]:
        """The ids of the rows that are shown."""
        return list(self._ids)

    def show(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Show rows, each an id and its cells; the first is selected where the selected one is gone."""
        rows = rows[:MOST_ROWS]
        if rows == self._shown:
            return
        self._shown = rows
        self._ids = [name for name, _ in rows]
        if self.selected not in self._ids:
            self.selected = self._ids[0] if self._ids else None
        shown = [
            [_cut(cells.get(c), FIRST if c == self._columns[0] else OTHER) for c in self._columns] for _, cells in rows
        ]
        frame = pd.DataFrame(shown, columns=self._columns)
        place = [self._ids.index(self.selected)] if self.selected is not None else []
        self._quiet = True
        page = place[0] // PAGE * PAGE if place else 0  # the chosen row stays in sight
        self.widget.update(frame, selected_rows=place, **OPTIONS | {"displayStart": page})
        self._quiet = False

    def select(self, name: str) -> None:
        """Select a row by its id."""
        self.widget.selected_rows = [self._ids.index(name)]

    def _picked(self, change: Mapping[str, Any]) -> None:
        places = change["new"]
        if self._quiet or not places or not 0 <= places[0] < len(self._ids):
            return
        self.selected = self._ids[places[0]]
        self._on_select(self.selected)


def _cut(value: Any, most: int) -> Any:
    return value if not isinstance(value, str) or len(value) <= most else value[: most - 1] + "…"
