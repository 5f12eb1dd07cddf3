"""`workbench.runs`: a folder's runs as a table to sort, to open one of and to compare several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("itables")

import workbench
from spark_kernel.errors import RunFolderError
from workbench.recorded import recorded_run
from workbench.views import RunView


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two copies of the recorded run, and one whose run.json is damaged."""
    root = tmp_path_factory.mktemp("runs")
    for place, name in enumerate(("one", "two", "broken")):
        shutil.copytree(recorded_run(), root / name)
        info = json.loads((root / name / "run.json").read_text(encoding="utf-8"))
        info |= {"name": name, "created": f"2026-01-0{place + 1}T00:00:00+00:00"}
        (root / name / "run.json").write_text("{" if name == "broken" else json.dumps(info), encoding="utf-8")
    return root


def test_runs_stand_newest_first_with_the_figures_of_their_headlines(folder: Path) -> None:
    frame = workbench.runs(folder).frame
    assert list(frame["run"]) == ["two", "one", "broken"]
    newest = {figure.name: figure.values[-1] for figure in RunView(recorded_run()).headline()}
    for column, name in (("solved", "solved"), ("judges itself", "judges"), ("after the loop", "loop")):
        assert list(frame[column])[:2] == [round(100 * newest[name], 1)] * 2
    assert "run.json" in frame.iloc[2]["state"]


def test_one_run_is_opened_and_several_are_compared(folder: Path) -> None:
    table = workbench.runs(folder)
    table.button_open.click()
    assert "Select one run to open" in table.said.value
    table.table.selected_rows = [1]
    table.button_open.click()
    assert "workbench.open" in table.said.value
    assert len(table.shown.children) == 1
    table.button_compare.click()
    table.job.wait(60)
    assert "Select two runs or more" in table.said.value
    table.table.selected_rows = [1, 0]
    assert [path.name for path in table.chosen] == ["two", "one"]
    table.button_compare.click()
    table.job.wait(60)
    assert "two and one" in table.said.value
    assert len(table.shown.children) == 4
    workbench.open(folder / "one").close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="There is no folder"):
        workbench.runs(tmp_path / "none")
