"""The first figure in a kernel does not wait for libraries that nobody asked for, and nothing is missing afterwards."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from workbench.notebook.lean_import import version_only

IN_A_KERNEL = """
import sys
import IPython  # as in a kernel; plotly looks for nbformat only then
from workbench.notebook.plotly_widget import FigureWidget
assert "nbformat" not in sys.modules, "nbformat was imported"
import plotly.graph_objects, plotly.io
plotly.io.renderers.default = "plotly_mimetype"
plotly.graph_objects.Figure().show()  # refuses without a new enough nbformat
import nbformat
assert nbformat.v4.new_notebook().cells == []
print("fine")
"""


@pytest.mark.slow
def test_plotly_is_told_the_version_and_others_get_the_library() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_KERNEL], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("fine"), done.stderr


def test_a_package_that_is_imported_or_missing_stays_as_it_is() -> None:
    import packaging

    with version_only("packaging"):
        assert sys.modules["packaging"] is packaging
    with version_only("no-such-package"), pytest.raises(ImportError):
        import_module("no-such-package")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library that is installed and not imported."""
    (tmp_path / "slow_library.py").write_text("whole = True\n")
    (tmp_path / "slow_library-1.2.dist-info").mkdir()
    (tmp_path / "slow_library-1.2.dist-info" / "METADATA").write_text("Name: slow_library\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "slow_library"


def test_the_stand_in_goes_with_the_block_whatever_happens(installed: str) -> None:
    def fail() -> None:
        with version_only(installed):
            assert import_module(installed).__version__ == "1.2"
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert import_module(installed).whole
    del sys.modules[installed]
