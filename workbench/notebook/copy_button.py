"""A button that puts a text on the clipboard, which only the browser can do."""

from __future__ import annotations

import anywidget
import traitlets

SCRIPT = """
function render({ model, el }) {
  const button = document.createElement("button");
  const said = document.createElement("span");
  button.type = "button";
  button.className = "jupyter-widgets jupyter-button widget-button spark-copy";
  said.className = "spark-muted";
  said.setAttribute("role", "status");
  const show = () => { button.textContent = model.get("description"); };
  const copied = () => {
    said.textContent = " copied";
    setTimeout(() => { said.textContent = ""; }, 2000);
  };
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(model.get("text"));
      copied();
    } catch (error) {
      said.textContent = " this browser does not allow it: select the text and copy it";
    }
  });
  model.on("change:description", show);
  show();
  el.append(button, said);
}
export default { render };
"""


class CopyButton(anywidget.AnyWidget):
    """`text` goes to the clipboard when the button is pressed."""

    _esm = SCRIPT
    text = traitlets.Unicode("").tag(sync=True)
    description = traitlets.Unicode("Copy").tag(sync=True)
