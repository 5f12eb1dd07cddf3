"""Where the notebooks are, and a folder to work in.

In a source checkout they lie in `notebooks/` and are worked on there. An installed package brings them as data files
(`share/spark-workbench/notebooks` of its environment), which are copied to a folder of the user's.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from spark_kernel.errors import InputError
from workbench.checkout import part_of_checkout

DISTRIBUTION = "spark-workbench"
WORKING_FOLDER = "spark-notebooks"


def shipped_notebooks() -> list[Path]:
    """The notebooks of this installation, in reading order.

    Raises:
        InputError: there are none.
    """
    own = part_of_checkout("notebooks")
    found = _installed() if own is None else sorted(own.glob("*.ipynb"))
    if not found:
        raise InputError(
            "This installation has no notebooks: install the package from a wheel or work in a source checkout."
        )
    return found


def working_folder(wanted: Path | None) -> Path:
    """A folder with the notebooks that can be written.

    Notebooks that are not there yet are copied into it; one that is there is the user's and stays as it is.

    Args:
        wanted: an existing folder; None: `notebooks/` of a checkout that can be written, else ./spark-notebooks.

    Raises:
        InputError: no such folder, or it cannot be written.
    """
    sources = shipped_notebooks()
    if wanted is not None and not wanted.is_dir():
        raise InputError(f"There is no folder {wanted}: make it first, or leave --folder out.")
    own = part_of_checkout("notebooks")
    if wanted is None and own is not None and os.access(own, os.W_OK):
        return own
    folder = (wanted or Path(WORKING_FOLDER)).absolute()
    try:
        folder.mkdir(exist_ok=True)
        for source in sources:
            if not (folder / source.name).exists():
                shutil.copyfile(source, folder / source.name)
    except OSError as error:
        raise InputError(
            f"The notebooks cannot be copied to {folder}: {error.strerror}. Choose another with --folder."
        ) from None
    return folder


def find_notebook(folder: Path, wanted: str | None) -> Path:
    """A notebook of a folder by number ("3"), name ("03_what_gets_recycled", also its beginning) or path.

    Args:
        wanted: None: the first one.

    Raises:
        InputError: none or several match; says which there are.
    """
    notebooks = sorted(folder.glob("*.ipynb"))
    if wanted is None:
        return notebooks[0]
    path = Path(wanted)
    if path.suffix == ".ipynb" and path.is_file():
        return path.absolute()
    start = f"{int(wanted):02d}_" if wanted.isdecimal() else path.name.removesuffix(".ipynb")
    exact = [notebook for notebook in notebooks if notebook.stem == start]
    matching = exact or [notebook for notebook in notebooks if notebook.name.startswith(start)]
    if len(matching) != 1:
        what = "There is no notebook" if not matching else "Several notebooks match"
        names = ", ".join(notebook.stem for notebook in notebooks)
        raise InputError(f'{what} "{wanted}" in {folder}. Notebooks: {names}.')
    return matching[0]


def _installed() -> list[Path]:
    """The data files of the installed package, wherever its installer has put them."""
    try:
        recorded = files(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    found = (Path(str(entry.locate())) for entry in recorded if entry.match(f"{DISTRIBUTION}/notebooks/*.ipynb"))
    return sorted(path.resolve() for path in found if path.is_file())
