"""Making a figure of one moment, and refilling one in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from workbench.figures.names import named_traces
from workbench.figures.style import Theme, template


def fill(
    figure: go.Figure | None,
    kind: type[Any],
    traces: Mapping[str, Mapping[str, Any]],
    layout: Mapping[str, Any],
    theme: Theme,
    name: str,
) -> go.Figure:
    """A new figure, or the given one refilled, whose traces are found by their names and stay.

    Args:
        kind: the plotly class of every trace.
        traces: what each trace shows, by its name.
        name: of the figure; zoom is kept as long as it stays the same.

    Raises:
        ValueError: the given figure lacks one of the traces, so that a new one is needed.
    """
    common = {
        "margin": {"l": 60, "r": 10, "t": 44, "b": 46},
        "uirevision": name,
        "hovermode": "closest",
    }
    if figure is None:
        made = go.Figure([kind(**new, meta=key) for key, new in traces.items()])
        made.update_layout({**common, **layout, "template": template(theme)})
        return made
    known = named_traces(figure, traces, name)
    with figure.batch_update():
        for key, new in traces.items():
            known[key].update(dict(new), overwrite=False)
        figure.layout.annotations = layout.get("annotations", ())  # an update would keep those that are too many
        figure.update_layout({name: value for name, value in layout.items() if name != "annotations"})
    return figure
