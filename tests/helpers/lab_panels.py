"""What the tests of the panels in JupyterLab do there: open a notebook, press, read, wait, train for long."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from spark_kernel.runs.reader import RunReader
from tests.helpers.jupyter_lab import LabServer, NotebookPage, write_notebook

PATIENCE = 300
"""Seconds for anything that a machine under load may take long for."""
# Rounds of more than a second on an idle machine, in many small steps: there is a middle to stop in.
LONG = "problems__per_round=24, rollout__samples=24, rollout__batch_size=8, learner__micro_batch_tokens=600"
CONFIG = f"""
from pathlib import Path
from spark_kernel.training.lifecycle import start_run
from tests.helpers.runs import tiny_config
config = tiny_config(Path('base'), rounds=500, evaluation__every=0, {LONG})
"""
PANEL = ".spark-panel"


def notebook(page: Page, server: LabServer, name: str, cells: list[str]) -> NotebookPage:
    """Write a notebook of these cells and open it."""
    write_notebook(server.folder / f"{name}.ipynb", cells)
    return NotebookPage(page, server, f"{server.folder.name}/{name}.ipynb").open()


def until(check: Any, what: str, seconds: float = PATIENCE) -> Any:
    """Wait for something on disk."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"in vain: {what}")


def events(run: Path, name: str) -> list[dict[str, Any]]:
    """The events of this name in a run."""
    return [event for event in RunReader(run).events() if event["event"] == name]


def says(panel: Locator, text: str | re.Pattern[str]) -> None:
    """Wait until a panel shows this text."""
    expect(panel).to_contain_text(text, timeout=PATIENCE * 1000)


def press(nb: NotebookPage, text: str, panel: Locator) -> None:
    """Press a button once it can be pressed."""
    button = nb.button(text, panel)
    expect(button).to_be_enabled(timeout=PATIENCE * 1000)
    button.click()


def train_for_long(nb: NotebookPage, controls: Locator) -> None:
    """Press Train with more rounds to do than any machine is through with while a test looks."""
    rounds = controls.locator("input[type=number]").first
    rounds.fill("400")
    rounds.press("Tab")
    press(nb, "Train", controls)
