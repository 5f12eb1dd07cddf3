"""Finding what stands in a figure by its name, so that what is added to a figure shifts nothing.

A trace carries its name in `meta`: `name` is what the legend says, which may repeat and may change with the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go


def named_traces(figure: go.Figure, names: Iterable[str], figure_name: str) -> dict[str, Any]:
    """The traces of these names; others in the figure are left alone.

    Raises:
        ValueError: the figure lacks one of them, so it is another figure.
    """
    found = {trace.meta: trace for trace in figure.data if isinstance(trace.meta, str)}
    wanted = list(names)
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"this is no {figure_name} figure, or an older one: it has no traces {', '.join(missing)}")
    return {name: found[name] for name in wanted}


def shape_named(figure: go.Figure, name: str) -> Any:
    """The shape of this name.

    Raises:
        ValueError: there is none.
    """
    for shape in figure.layout.shapes:
        if shape.name == name:
            return shape
    raise ValueError(f"this figure has no shape {name}")
