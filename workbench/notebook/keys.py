"""Keys in panels: what is typed there does not reach the notebook, whose own keys delete cells; rows move by keys."""

from __future__ import annotations

import anywidget

ROWS = "spark-rows"
"""The class of a table whose rows move by keys."""
SCRIPT = """
const STEPS = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 };

let kept;  // what had the last key in a panel

function listen() {
  if (globalThis.sparkKeys) return;
  globalThis.sparkKeys = true;
  // The window hears a key before JupyterLab does. Chords stay Lab's (Ctrl+S saves), and so does Escape.
  window.addEventListener("keydown", (event) => {
    if (!event.target?.closest?.(".spark-panel")) return;
    const chord = event.ctrlKey || event.metaKey || event.altKey || event.key === "Escape";
    // On the focused element itself, because the notebook's keys are asked for by ":focus".
    kept?.removeAttribute("data-lm-suppress-shortcuts");
    kept = event.target;
    kept.toggleAttribute("data-lm-suppress-shortcuts", !chord);
    const table = event.target.closest(".spark-rows");
    if (chord || event.shiftKey || !table || !(event.key in STEPS)) return;
    if (event.target.closest("input, textarea, select, button")) return;
    event.preventDefault();
    event.stopPropagation();
    move(table, STEPS[event.key]);
  }, true);
}

function move(table, step) {
  const rows = [...table.querySelectorAll("tbody tr")];
  const place = rows.findIndex((row) => row.classList.contains("selected")) + step;
  if (place >= 0 && place < rows.length) return choose(rows[place]);
  // The next page, or the one before, drawn within this call.
  const page = table.querySelector(`.dt-paging-button.${step > 0 ? "next" : "previous"}:not(.disabled)`);
  if (!page) return;
  page.click();
  const drawn = table.querySelectorAll("tbody tr");
  choose(step > 0 ? drawn[0] : drawn[drawn.length - 1]);
  table.focus();
}

function choose(row) {
  row.querySelector("td").click();
  row.scrollIntoView({ block: "nearest" });
}

function render({ el }) {
  el.style.display = "none";
  listen();
  // A click anywhere in a panel takes the keys there, and Tab reaches its tables. Both come into their place later.
  const settle = () => {
    const panel = el.closest(".spark-panel");
    if (!panel) return;
    if (!panel.hasAttribute("tabindex")) panel.tabIndex = -1;
    for (const table of panel.querySelectorAll(".spark-rows:not([tabindex])")) {
      table.tabIndex = 0;
      table.setAttribute("role", "group");
      table.setAttribute("aria-label", "rows: arrows or j and k choose one");
    }
  };
  const observer = new MutationObserver(settle);
  observer.observe(el.closest(".spark-panel") ?? document.body, { childList: true, subtree: true });
  settle();
  return () => observer.disconnect();
}
export default { render };
"""


class PanelKeys(anywidget.AnyWidget):
    """Stands in a panel, unseen, and keeps its keys from the notebook: all but chords (Ctrl, Alt, Cmd) and Escape.

    In a table of class `ROWS` the arrows and j and k move the chosen row, over pages, too.
    """

    _esm = SCRIPT
