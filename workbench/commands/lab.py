"""`workbench lab`: JupyterLab on the notebooks, with the interpreter that runs this command as their kernel."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import tyro

from spark_kernel.errors import InputError
from workbench.cli import OK
from workbench.shipped_notebooks import find_notebook, working_folder

ADDRESS = "127.0.0.1"
NEEDED = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "plotly")


@dataclass(frozen=True)
class LabArguments:
    """Open the notebooks in JupyterLab.

    It listens on 127.0.0.1 and asks for its token, as JupyterLab does by default. The notebooks' kernel is the
    interpreter that runs this command. What comes after -- is handed to JupyterLab: workbench lab 2 -- --allow-root
    """

    notebook: Annotated[
        str | None,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[NOTEBOOK]", help="Its number, the beginning of its name, or a path; by default the first."
        ),
    ] = None
    folder: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="DIR",
            help="Work in this folder; notebooks that it lacks are copied there. By default notebooks/ of a source "
            "checkout, else ./spark-notebooks.",
        ),
    ] = None
    port: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Exactly this port; by default 8888, or the next free one.")
    ] = None
    browser: Annotated[bool, tyro.conf.arg(help="Open a browser.")] = True


def lab(arguments: Sequence[str]) -> int:
    """Start JupyterLab and stay until it is ended."""
    own, extra = _split(arguments)
    args = tyro.cli(LabArguments, prog="workbench lab", args=own)
    _check_installed()
    _check_port(args.port)
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in extra:
        raise InputError("JupyterLab does not run as root unless it is told to: workbench lab -- --allow-root")
    folder = working_folder(args.folder)
    notebook = find_notebook(folder, args.notebook)
    root = folder.parent if notebook.is_relative_to(folder.parent) else notebook.parent
    place = "/".join(map(quote, notebook.relative_to(root).parts))
    options = [
        f"--ServerApp.ip={ADDRESS}",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{place}",
    ]
    if args.port is not None:
        options += [f"--ServerApp.port={args.port}", "--ServerApp.port_retries=0"]
    if not args.browser:
        options.append("--no-browser")
    print(f"Notebooks: {folder}", flush=True)
    with tempfile.TemporaryDirectory(prefix="spark-lab-") as kernels:
        _settle_environment(Path(kernels))
        from jupyterlab.labapp import LabApp

        LabApp.launch_instance([*options, *extra])
    return OK


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and what comes after --."""
    given = list(arguments)
    if "--" not in given:
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


def _check_installed() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"workbench lab needs {', '.join(missing)}: install the extra `notebook`, for example with "
            "pip install 'spark-workbench[notebook]'."
        )


def _check_port(port: int | None) -> None:
    if port is None:
        return
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port} is refused: 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be used ({error.strerror}): choose another --port, or leave it out for a free one."
            ) from None


def _settle_environment(folder: Path) -> None:
    """Have `python3`, the kernel that the notebooks name, be this interpreter; let their progress bars show.

    A kernel of the same name that some other Python has registered for the user would otherwise come first.
    """
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "Python 3 (SPARK workbench)", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    others = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(folder), *([others] if others else [])])
    # Set by the command line where nobody looks at its error output; a notebook is looked at.
    for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.pop(name, None)
