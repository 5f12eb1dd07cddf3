"""Measure the notebook's panels: python scripts/measure_panels.py [--stops N]. docs/notebook.md keeps the numbers.

How long the recorded run's panels take in a fresh kernel, and how long after a click on Stop the controls of a training
run say so, in a real JupyterLab and Chromium. Needs what the tests need (`make setup-dev`, a Chromium).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PANELS = [
    "controls",
    "dashboard",
    "rollouts",
    "recycled",
    "correction",
    "configuration",
    "preflight",
    "compare",
    "export",
]
TIMED = "import time; t = time.perf_counter(); {work}; print('{name}', round(time.perf_counter() - t, 2), 's')"
OPEN = "import workbench; wb = workbench.open()"
WATCH_STOP = """() => {
    const panel = document.querySelector('.spark-panel'), seen = window.seen = {};
    let start;
    document.addEventListener('mousedown', () => { start = performance.now(); }, {capture: true, once: true});
    new MutationObserver(() => {
        if (start === undefined) return;
        for (const [name, said] of [['stopping', /stopping|Stopped in/], ['stopped', /Stopped in round/]])
            if (said.test(panel.innerText)) seen[name] ??= performance.now() - start;
    }).observe(panel, {childList: true, subtree: true, characterData: true});
}"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=5)
    args = parser.parse_args()
    one_by_one = [TIMED.format(work=OPEN, name="open")]
    one_by_one += [TIMED.format(work=f"wb.{panel}.widget", name=panel) for panel in PANELS]
    for cells in (one_by_one, [TIMED.format(work=f"{OPEN}; wb.widget", name="all panels in one cell")]):
        run_cells(cells)
    measure_stops(args.stops)
    return 0


def run_cells(cells: list[str]) -> None:
    """Run cells in a kernel of their own and print what they print."""
    from tests.helpers.notebooks import ThisInterpreter

    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": folder, "JUPYTER_RUNTIME_DIR": folder}
        NotebookClient(
            content, timeout=600, kernel_manager_class=ThisInterpreter, resources={"metadata": {"path": folder}}
        ).execute(env=environment)
    for cell in content.cells:
        print("".join(output.text for output in cell.outputs if output.output_type == "stream").strip())


def measure_stops(times: int) -> None:
    """Train the tests' tiny model from the controls, and stop it in mid-round again and again."""
    from tests.helpers.browser import launched_chromium, new_page
    from tests.helpers.jupyter_lab import lab_server, write_notebook
    from tests.helpers.lab_panels import CONFIG, PANEL, notebook, press, says, train_for_long
    from tests.helpers.runs import tiny_config

    with tempfile.TemporaryDirectory() as name, launched_chromium() as browser:
        folder = Path(name)
        tiny_config(folder / "base")
        write_notebook(folder / "start.ipynb", ["print(1)"])
        with lab_server(folder, "start.ipynb", "--folder", name) as server:
            page: Any = new_page(browser, width=1280, height=1300)
            cell = f"import workbench\n{CONFIG}wb = workbench.new(config, 'runs/demo')\nwb.controls"
            shown = notebook(page, server, "controls", [cell])
            controls = shown.run(0).locator(PANEL).first
            for _ in range(times):
                train_for_long(shown, controls)
                says(controls, re.compile(r"round \d+: (update|roll)"))
                page.wait_for_timeout(1500)
                page.evaluate(WATCH_STOP)
                press(shown, "Stop", controls)
                says(controls, "Stopped in round")
                page.wait_for_timeout(300)
                print("milliseconds after the click on Stop:", page.evaluate("window.seen"))
            page.context.close()


if __name__ == "__main__":
    sys.exit(main())
