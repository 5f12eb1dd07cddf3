"""Notebooks in git: clean, equal to their sources, with parameters; and the check that says so can fail."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/notebook_pairs.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import notebook_pairs

    return notebook_pairs


def test_every_notebook_is_what_its_source_makes_of_it(pairs: Any) -> None:
    assert len(SOURCES) >= 6
    assert pairs.differing(ROOT / "notebooks") == [], "run `make notebooks`"


@pytest.mark.parametrize("change", ["edited", "with output", "missing", "stray"])
def test_what_is_not_equal_is_found(pairs: Any, tmp_path: Path, change: str) -> None:
    source = tmp_path / "a.py"
    shutil.copy(SOURCES[0], source)
    notebook = source.with_suffix(".ipynb")
    notebook.write_text(pairs.paired(source), encoding="utf-8")
    assert pairs.differing(tmp_path) == []
    if change == "edited":
        source.write_text(source.read_text(encoding="utf-8") + "\n# %%\nprint(1)\n", encoding="utf-8")
    elif change == "with output":
        content = nbformat.read(notebook, as_version=4)
        code = next(cell for cell in content.cells if cell.cell_type == "code")
        code.outputs = [nbformat.v4.new_output("stream", text="42")]
        nbformat.write(content, notebook)
    elif change == "missing":
        notebook.unlink()
    else:
        notebook = tmp_path / "b.ipynb"
        shutil.copy(source.with_suffix(".ipynb"), notebook)
    assert pairs.differing(tmp_path) == [notebook]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_can_be_set_up_from_outside(source: Path) -> None:
    content = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(content)
    # JupyterLab asks for no kernel where the metadata names the one that every installation has.
    assert content.metadata.kernelspec.name == "python3"
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0] is code[0]
    # Only plain assignments of values: whoever injects others after it overrides all of it.
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_prose_comes_before_code(source: Path) -> None:
    kinds = [cell.cell_type for cell in nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= 5
