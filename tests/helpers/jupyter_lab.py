"""A real JupyterLab, started by `workbench lab` on a scratch folder, and hands to use it through a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nbformat
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300
READY = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    const kernel = context?.session?.kernel;
    return context?.isReady && kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    # A notebook scrolled out of sight is not drawn by default; tests look for elements wherever they are.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": {"autosave": False},
}


@dataclass(frozen=True)
class LabServer:
    """A running server: its address with slash, its token, the folder of the notebooks, its process."""

    url: str
    token: str
    folder: Path
    process: subprocess.Popen[str]

    def get(self, path: str) -> Any:
        """What its REST interface answers."""
        return httpx.get(self.url + path, headers={"Authorization": f"token {self.token}"}, timeout=60).json()


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def lab_server(folder: Path, *arguments: str, **extra: str) -> Iterator[LabServer]:
    """`workbench lab` in a process of its own; settings, workspaces and runtime files lie in the folder, too."""
    home = folder / ".lab"
    for name, values in QUIET.items():
        path = home / "settings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        **extra,
    }
    port = free_port()
    command = [sys.executable, "-m", "workbench", "lab", *arguments, "--no-browser", "--port", str(port), "--"]
    log = (home / "server.log").open("w+", encoding="utf-8")
    process = subprocess.Popen(
        [*command, "--allow-root", "--LabApp.expose_app_in_browser=True"],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        found = _wait_for_address(process, home / "server.log")
        yield LabServer(f"http://127.0.0.1:{port}/", found["token"], folder, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _wait_for_address(process: subprocess.Popen[str], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+/lab\S*\?token=(?P<token>\w+)", log.read_text(encoding="utf-8"))
        if found:
            return found.groupdict()
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')}")


def write_notebook(path: Path, cells: Sequence[str]) -> Path:
    """A notebook of code cells whose kernel is `python3`."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    content.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(content, path)
    return path


class NotebookPage:
    """A notebook in a page."""

    def __init__(self, page: Page, server: LabServer, name: str) -> None:
        self.page, self.server, self.name = page, server, name

    def open(self, workspace: str = "auto-test") -> NotebookPage:
        """Go to the notebook, in a fresh layout, and wait for its kernel."""
        place = f"lab/workspaces/{workspace}/tree/{self.name}?reset&token={self.server.token}"
        self.page.goto(self.server.url + place)
        return self.wait()

    def wait(self) -> NotebookPage:
        """Wait until the notebook is drawn and its kernel idle."""
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.wait_for_function(READY, timeout=START_SECONDS * 1000)
        return self

    def cell(self, number: int) -> Locator:
        """A cell, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def start(self, number: int) -> Locator:
        """Run a cell, and do not wait for it."""
        cell = self.cell(number)
        cell.locator(".jp-InputPrompt").click()
        expect(cell).to_have_class(re.compile("jp-mod-active"))
        # What Ctrl+Enter runs; a key would be lost where the page takes the focus elsewhere at that moment.
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text(re.compile(r"\[ \]"))
        return cell

    def run(self, number: int, seconds: float = START_SECONDS) -> Locator:
        """Run a cell and wait until it is done."""
        self.start(number)
        return self.done(number, seconds)

    def done(self, number: int, seconds: float = START_SECONDS) -> Locator:
        """Wait until a cell that was started is done."""
        cell = self.cell(number)
        expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=seconds * 1000)
        return cell

    def is_running(self, number: int) -> bool:
        """Whether a cell is being run or waits to be."""
        return self.cell(number).locator(".jp-InputPrompt").inner_text() == "[*]:"

    def interrupt(self) -> None:
        """The kernel's own interrupt, by its button in the notebook's toolbar."""
        self.page.locator('.jp-NotebookPanel-toolbar [data-command="notebook:interrupt-kernel"]').first.click()

    def set_theme(self, name: str) -> None:
        """Switch the theme with JupyterLab's own command ("JupyterLab Light", "JupyterLab Dark")."""
        self.page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        light = "true" if "Light" in name else "false"
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", light)

    def button(self, text: str, within: Locator | None = None) -> Locator:
        """A widget's button by its exact text."""
        return (within or self.page.locator("body")).locator("button.widget-button", has_text=re.compile(f"^{text}$"))
