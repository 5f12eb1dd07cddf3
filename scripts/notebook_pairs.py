"""Writes the .ipynb beside every notebooks/*.py, without outputs; with --check only says which ones are not equal.

    python scripts/notebook_pairs.py [--check]

The .py (jupytext's percent format) is the source. The .ipynb follows from it byte for byte: cell ids are numbers, there
are no outputs and no versions in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def main() -> int:
    """Write or check; 1 where a check finds differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, say what is not equal")
    arguments = parser.parse_args()
    different = differing(NOTEBOOKS)
    for path in different:
        if arguments.check:
            print(f"{path.name} is not what {path.stem}.py makes of it: run `make notebooks`", file=sys.stderr)
        elif path.with_suffix(".py").exists():
            path.write_text(paired(path.with_suffix(".py")), encoding="utf-8")
            print(f"wrote {path.name}")
        else:
            print(f"{path.name} has no .py beside it: remove one or write the other", file=sys.stderr)
    return int(bool(different) and arguments.check)


def paired(source: Path) -> str:
    """The text of the .ipynb that belongs to a .py."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(
        {
            "jupytext": {"formats": "ipynb,py:percent", "text_representation": {"format_name": "percent"}},
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def differing(folder: Path) -> list[Path]:
    """The .ipynb files that are missing, out of date, or without a source."""
    sources = sorted(folder.glob("*.py"))
    wanted = {source.with_suffix(".ipynb"): paired(source) for source in sources}
    stray = [path for path in sorted(folder.glob("*.ipynb")) if path not in wanted]
    return [path for path, text in wanted.items() if not _equals(path, text)] + stray


def _equals(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
