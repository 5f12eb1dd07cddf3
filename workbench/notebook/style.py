"""The look of our panels: JupyterLab's own colours, so that light and dark themes both fit; scoped to our class."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.notebook.keys import PanelKeys
from workbench.notebook.static_form import with_static_form

if TYPE_CHECKING:
    from workbench.notebook.driver_state import DriverState
    from workbench.notebook.run_on_disk import Seen

CSS = """
<style>
.spark-panel { color: var(--jp-ui-font-color1); font-size: var(--jp-ui-font-size1, 13px); max-width: 1100px; }
.jupyter-widgets.jupyter-widget-tab.spark-tabs > .lm-TabBar .lm-TabBar-tab { flex: 0 0 auto; min-width: 0; }
.spark-panel .spark-row { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
.spark-panel .spark-muted { color: var(--jp-ui-font-color1); opacity: .85; }
.spark-panel .spark-note { border-left: 3px solid var(--jp-brand-color1, #1976d2); padding: 2px 8px; margin: 4px 0; }
.spark-panel .spark-error { border-left: 3px solid var(--jp-error-color1, #c62828); padding: 2px 8px; margin: 4px 0; }
.spark-panel .spark-pill { display: inline-block; padding: 0 8px; border-radius: 9px; font-weight: 600;
  border: 1px solid var(--jp-border-color1, #777); }
.spark-panel table.spark-table { border-collapse: collapse; margin: 4px 0; }
.spark-panel table.spark-table th, .spark-panel table.spark-table td { text-align: left; padding: 2px 10px 2px 0;
  border-bottom: 1px solid var(--jp-border-color2, #999); vertical-align: top; }
.spark-panel pre.spark-text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 2px 0;
  font-family: var(--jp-code-font-family, monospace); font-size: var(--jp-code-font-size, 13px); }
.spark-panel .spark-help { opacity: .85; padding-left: 8px; line-height: 1.35; }
.spark-panel .spark-changed .widget-label { font-weight: 700; }
.spark-panel .spark-refused input { border: 2px solid var(--jp-error-color1, #c62828); }
.spark-panel .spark-refused .widget-label::after { content: ": refused"; }
.spark-panel details > summary { cursor: pointer; padding: 2px 0; }
.spark-panel .widget-html-content { line-height: 1.45; }
.spark-panel caption { white-space: nowrap; text-align: left; font-weight: 600; padding: 4px 0;
  color: var(--jp-ui-font-color1); }
.spark-panel h3, .spark-panel h4, .spark-panel h5 { margin: 8px 0 2px; font-weight: 600; }
.spark-panel .spark-model-text { border-left: 2px solid var(--jp-border-color2, #999); padding: 2px 10px; margin: 2px 0;
  max-height: 420px; overflow: auto; }
.spark-panel .spark-model-text pre, .spark-panel details pre { white-space: pre-wrap; overflow-wrap: anywhere;
  margin: 2px 0; }
.spark-panel .spark-role { font-weight: 600; margin-top: 6px; }
.spark-panel img.spark-image { max-width: 420px; max-height: 320px; display: block; margin: 4px 0;
  background: #fff; }
.spark-panel .spark-bar { display: inline-block; height: 10px; background: var(--jp-brand-color1, #1976d2); }
.spark-panel .spark-lost { outline: 2px solid var(--jp-error-color1, #c62828); font-weight: 700; }
.spark-panel .widget-htmlmath-content { width: 100%; }
.spark-panel .spark-columns { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px; }
.spark-panel .spark-diff ins { text-decoration: underline; background: rgba(0, 158, 115, .25); color: inherit; }
.spark-panel .spark-diff del { text-decoration: line-through; background: rgba(213, 94, 0, .25); color: inherit; }
.spark-panel .spark-p1 { background: rgba(213, 94, 0, .12); }
.spark-panel .spark-p2 { background: rgba(213, 94, 0, .24); }
.spark-panel .spark-p3 { background: rgba(213, 94, 0, .36); }
.spark-panel .spark-p4 { background: rgba(213, 94, 0, .36); text-decoration: underline dotted; }
.spark-panel .dt-layout-full { overflow-x: hidden; }
.spark-panel .spark-figure { min-width: 0; max-width: 100%; overflow: hidden; }
.spark-panel:focus { outline: none; }
.spark-panel .spark-rows:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -2px; }
.spark-panel.spark-wide { max-width: none; }
</style>
"""


def panel(*children: widgets.Widget) -> widgets.VBox:
    """A column that our style applies to."""
    box = widgets.VBox([widgets.HTML(CSS), *children, PanelKeys()])
    box.add_class("spark-panel")
    return box


def row(*children: widgets.Widget) -> widgets.Box:
    """Widgets side by side that wrap where the page is narrow."""
    return widgets.Box(
        list(children), layout=widgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="6px")
    )


def note(text: str, *, error: bool = False) -> str:
    """A sentence as HTML: marked as error or not; empty for no text."""
    if not text:
        return ""
    kind, role = ("spark-error", "alert") if error else ("spark-note", "status")
    return f'<div class="{kind}" role="{role}">{html.escape(text)}</div>'


def table(rows: list[tuple[str, str]], caption: str = "") -> str:
    """Names and values as an HTML table; both are escaped."""
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in rows
    )
    head = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f'<table class="spark-table">{head}<tbody>{body}</tbody></table>'


class Panel(ABC):
    """A part of the workbench that can be displayed alone: `panel` as the last line of a cell."""

    def __init__(self, *children: widgets.Widget) -> None:
        self.widget = panel(*children)

    @abstractmethod
    def refresh(self, state: DriverState, seen: Seen) -> None:
        """Show what is new in the worker's snapshot and in the run as it is on disk."""

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_static_form(self.widget._repr_mimebundle_(**kwargs), self.widget)
