"""Panels where there are no widgets (GitHub, a page by nbconvert, a mail): what they show, as HTML without a script.

A notebook's output holds this beside the widgets; a host that knows widgets takes those.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets

MOST_ROWS = 20
"""Rows of a table."""
LONGEST = 400_000
"""Characters; a notebook file should not grow by more for a panel."""
CONTROLS = (widgets.Dropdown, widgets.BoundedIntText, widgets.Text, widgets.Checkbox)
HINT = (
    "<p><em>A still of a panel: its controls need a notebook with widgets (JupyterLab). "
    "<code>workbench report RUN --html FILE</code> writes a whole run as a page.</em></p>"
)


def static_html(widget: widgets.Widget) -> str:
    """What a widget and all in it show now; controls are left out but for what is chosen in them."""
    parts: list[str] = []
    length = 0
    for part in _parts(widget):
        length += len(part)
        if length > LONGEST:
            parts.append("<p><em>The rest is left out here.</em></p>")
            break
        parts.append(part)
    return HINT + "".join(parts)


def with_static_form(bundle: Any, widget: widgets.Widget) -> Any:
    """A widget's mime bundle, or bundle and metadata, with the static form as its HTML."""
    data, *rest = bundle if isinstance(bundle, tuple) else (bundle,)
    if not isinstance(data, dict):
        return bundle
    data = {**data, "text/html": static_html(widget)}
    return (data, *rest) if rest else data


def _parts(widget: widgets.Widget) -> Iterator[str]:
    # Figures and tables by what they have: their packages take a second to load, and a panel may have neither.
    if hasattr(widget, "to_plotly_json"):
        yield _figure(widget)
        return
    layout = getattr(widget, "layout", None)
    if layout is not None and layout.display == "none":
        return
    if (rows := getattr(widget, "df", None)) is not None:
        more = f"<p>The first {MOST_ROWS} of {len(rows)} rows.</p>" if len(rows) > MOST_ROWS else ""
        yield rows.head(MOST_ROWS).to_html(index=False, border=0, na_rep="", escape=True) + more
    elif isinstance(widget, widgets.HTML | widgets.HTMLMath):
        if widget.value:
            yield str(widget.value)
    elif isinstance(widget, widgets.Tab):
        for title, child in zip(widget.titles, widget.children, strict=False):
            yield f"<details><summary>{html.escape(title)}</summary>"
            yield from _parts(child)
            yield "</details>"
    elif isinstance(widget, widgets.Box):
        for child in widget.children:
            yield from _parts(child)
    elif isinstance(widget, CONTROLS) and widget.description and widget.value not in (None, "", False):
        yield f"<span>{html.escape(widget.description)}: {html.escape(str(widget.value))}</span> &nbsp; "


def _figure(figure: Any) -> str:
    """A figure's lines as a table: the first and the newest value of each."""
    rows = []
    for trace in figure.data:
        if trace.visible is False or not trace.name or trace.y is None or trace.fill == "toself":
            continue
        places = trace.customdata if trace.customdata is not None else trace.x  # markers stand a little aside
        points = [(x, y) for x, y in zip(places or (), trace.y, strict=False) if isinstance(y, int | float)]
        if points:
            ends = (points[0], points[-1])
            cells = "".join(f"<td>{html.escape(str(x))}</td><td>{y:.4g}</td>" for x, y in ends)
            rows.append(f'<tr><th scope="row">{html.escape(str(trace.name))}</th>{cells}</tr>')
    if not rows:
        return ""
    title = html.escape(str(figure.layout.title.text or "figure"))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("line", "first at", "value", "newest at", "value"))
    return f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
