"""Runs a notebook headless, with some of its parameters replaced, in a kernel of this interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
SECONDS = 400
"""Longest a single cell may take."""


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with the interpreter that runs the tests, whatever kernels this machine knows."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The one kernel there is."""
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="tests",
            language="python",
        )


def run_notebook(name: str, folder: Path, /, **parameters: Any) -> None:
    """Run notebooks/NAME.ipynb from top to bottom in a folder.

    Args:
        parameters: values of the tagged cell that are replaced.

    Raises:
        CellExecutionError: a cell failed.
    """
    content = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    place = next(i for i, cell in enumerate(content.cells) if "parameters" in cell.metadata.get("tags", []))
    known = content.cells[place].source
    for parameter in parameters:
        assert f"\n{parameter} = " in f"\n{known}", f"{name} has no parameter {parameter}"
    injected = "\n".join(f"{parameter} = {value!r}" for parameter, value in parameters.items())
    content.cells.insert(place + 1, nbformat.v4.new_code_cell(injected))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder / ".ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
    }
    client = NotebookClient(
        content,
        timeout=SECONDS,
        kernel_manager_class=ThisInterpreter,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
