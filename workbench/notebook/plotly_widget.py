"""Figure widgets that share one copy of plotly.js.

Each of plotly's own figure widgets carries its 5 MB script in its state: six figures would send 30 MB to a page and run
plotly six times there. Ours name a widget that has the script, and load it once a page.
"""

from __future__ import annotations

import pathlib
import weakref
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as widgets
import traitlets

from workbench.notebook.lean_import import version_only

with version_only("nbformat"):
    import plotly
    import plotly.basewidget
    import plotly.graph_objects as go

if TYPE_CHECKING:
    from workbench.figures.style import Theme

THEMES: tuple[Theme, ...] = ("light", "dark")
LOADER = """
async function load(model) {
  const name = "spark-plotly-" + model.get("_version");
  if (!globalThis[name]) {
    globalThis[name] = (async () => {
      const place = model.get("_script").slice("IPY_MODEL_".length);
      const script = await model.widget_manager.get_model(place);
      const url = URL.createObjectURL(new Blob([script.get("text")], { type: "text/javascript" }));
      try {
        return (await import(url)).default;
      } finally {
        URL.revokeObjectURL(url);
      }
    })();
    globalThis[name].catch(() => { delete globalThis[name]; });
  }
  return globalThis[name];
}
const MESSAGES = ["addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update", "animate",
  "removeLayoutProps", "removeTraceProps"].map((name) => "_py2js_" + name);
export default () => {
  let inner, ready;
  return {
    // anywidget gives a model two seconds: the script is not waited for here, and what comes meanwhile is kept.
    initialize(context) {
      const model = context.model, kept = [];
      const keepers = MESSAGES.map((name) => {
        const keep = () => { if (model.get(name)) kept.push([name, model.get(name)]); };
        model.on("change:" + name, keep);
        return [name, keep];
      });
      ready = (async () => {
        const made = await load(model);
        inner = typeof made === "function" ? await made() : made;
        for (const [name, keep] of keepers) model.off("change:" + name, keep);
        await inner.initialize?.(context);
        for (const [name, value] of kept) {
          model.set(name, value);
          model.set(name, null);
        }
      })();
    },
    async render(context) {
      // Legends are measured when they are drawn: what was drawn behind another tab is drawn again when it is seen.
      const resize = () => {
        clearTimeout(globalThis.sparkResize);
        globalThis.sparkResize = setTimeout(() => window.dispatchEvent(new Event("resize")), 200);
      };
      await ready;
      const ended = await inner.render?.(context);
      const observer = new ResizeObserver((entries) => {
        if (entries.some((entry) => entry.contentRect.width > 0)) resize();
      });
      observer.observe(context.el);
      resize();
      return () => { observer.disconnect(); if (typeof ended === "function") ended(); };
    },
  };
};
"""


class Script(widgets.Widget):
    """Holds plotly's script in the page."""

    text = traitlets.Unicode().tag(sync=True)


_SCRIPT: list[weakref.ref[Script]] = []


def shared_script() -> Script:
    """The script widget of this process, made when it is first needed."""
    known = _SCRIPT[0]() if _SCRIPT else None
    if known is None or known.comm is None:
        source = plotly.basewidget.BaseFigureWidget._esm
        text = source.read_text(encoding="utf-8") if isinstance(source, pathlib.Path) else str(source)
        known = Script(text=text)
        _SCRIPT[:] = [weakref.ref(known)]
    return known


class FigureWidget(go.FigureWidget):
    """plotly's figure widget with a shared script."""

    _config: dict[str, Any]
    _esm = LOADER
    _script = traitlets.Instance(Script).tag(sync=True, **widgets.widget_serialization)
    _version = traitlets.Unicode(plotly.__version__).tag(sync=True)

    def __init__(self, figure: go.Figure) -> None:
        super().__init__(figure)
        self._config = {**self._config, "responsive": True}

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """The state, for a page that opens or is loaded again: with the data as it is now.

        plotly sends changes as messages and leaves in the state what was there when the figure was shown first: a page
        that was loaded again would draw an empty figure, for good.
        """
        if key is None and "_layout_obj" in self.__dict__:  # not while it is being made
            self._trait_values["_widget_data"] = deepcopy(self._data)
            self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)
        return super().get_state(key, drop_defaults)

    @traitlets.default("_script")
    def _first_script(self) -> Script:
        return shared_script()


class PageTheme(anywidget.AnyWidget):
    """Whether the page is light or dark now; `theme` follows it."""

    _esm = """
    function initialize({ model }) {
      const look = () => {
        const data = document.body.dataset;
        const dark = data.jpThemeLight === "false" || document.body.classList.contains("vscode-dark");
        if (model.get("theme") !== (dark ? "dark" : "light")) {
          model.set("theme", dark ? "dark" : "light");
          model.save_changes();
        }
      };
      const observer = new MutationObserver(look);
      observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
      look();
      return () => observer.disconnect();
    }
    export default { initialize, render() {} };
    """
    theme = traitlets.Enum(THEMES, "light").tag(sync=True)
