"""Panels over run folders that are missing, broken, newer, written by another process, or whose writer was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: the extra `notebook` brings it")

import workbench
from spark_kernel.errors import InputError, SparkError
from tests.helpers.pages import page_text
from tests.helpers.runs import tiny_config
from workbench.notebook.driver_state import BUSY, Action, Mode
from workbench.notebook.workbench import Workbench
from workbench.recorded import recorded_run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PATIENCE = 240.0
TRAIN = """
import sys
from pathlib import Path
from spark_kernel.training.lifecycle import start_run
from tests.helpers.runs import tiny_config
start_run(tiny_config(Path(sys.argv[1]), rounds=10_000, evaluation__every=0), sys.argv[2]).train()
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded_run(), tmp_path / "recorded"))


def everything(wb: Workbench) -> str:
    """What all panels say."""
    wb.refresh()
    panels = (wb.controls, wb.dashboard, wb.rollouts, wb.recycled, wb.correction)
    return page_text(*(panel.message.value for panel in panels), wb.controls.reasons.value)


def eventually(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def test_a_missing_run_is_a_sentence_in_every_panel_and_no_button_acts(tmp_path: Path) -> None:
    with workbench.open(tmp_path / "nowhere") as wb:
        assert f"There is no run at {tmp_path / 'nowhere'}: check the name" in everything(wb)
        assert all(wb.controls.button(action).disabled for action in Action)
        assert wb.widget.titles[0] == "Controls"
        with pytest.raises(SparkError, match="There is no run at"):
            wb.train(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 99}, "was written by a newer version of this program (run schema 99"),
        ({"schema_version": None}, "names no schema version"),
    ],
)
def test_a_newer_or_damaged_run_says_so(recorded: Path, change: dict[str, object], said: str) -> None:
    info = json.loads((recorded / "run.json").read_text())
    (recorded / "run.json").write_text(json.dumps(info | change))
    with workbench.open(recorded) as wb:
        assert said in everything(wb)
        assert wb.controls.button(Action.TRAIN).disabled
        assert said in wb.controls.button(Action.FORK).tooltip


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("run.json", None),
        ("run.json", b'{"schema'),
        ("config.yaml", None),
        ("rounds/000002/rollouts.parquet", b"PAR1"),
        ("rounds/000002/report.json", None),
    ],
)
def test_a_half_written_run_says_what_is_wrong_and_panels_come_back_when_it_is_whole(
    recorded: Path, name: str, left: bytes | None
) -> None:
    kept = (recorded / name).read_bytes()
    if left is None:
        (recorded / name).unlink()
    else:
        (recorded / name).write_bytes(left)
    with workbench.open(recorded) as wb:
        wb.rollouts.shared.select(2)
        said = everything(wb)
        assert Path(name).name in said
        assert "Traceback" not in said
        (recorded / name).write_bytes(kept)
        said = everything(wb)
        assert Path(name).name not in said
        assert wb.rollouts.table.ids


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    run = tmp_path / "written elsewhere"
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "base"), str(run)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    yield process, run
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_run_written_by_another_process_is_followed_and_after_its_kill_resumed_from_the_panel(
    writer: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, run = writer
    eventually(lambda: (run / "rounds" / "000001").is_dir() or process.poll() is not None, "no first round")
    with workbench.open(run) as wb:
        said = everything(wb)
        assert f"Process {process.pid} on " in said
        assert "Another process writes this run" in wb.controls.button(Action.TRAIN).tooltip
        wb.controls.button(Action.TRAIN).click()
        assert wb.driver.state.mode is Mode.WATCHING
        assert not wb.controls.button(Action.FORK).disabled
        seen = wb.rollouts.shared.rounds[-1]
        eventually(lambda: wb.rollouts.shared.rounds[-1] >= seen + 2, "the panels do not follow")
        wb.refresh()
        assert wb.rollouts.table.ids[0].startswith(f"{wb.rollouts.shared.selected:06d}-")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert "ended without closing it (a kill, a crash or a power cut)" in everything(wb)
        assert "Resume goes on from there" in wb.controls.message.value
        wb.controls.button(Action.RESUME).click()
        state = wb.driver.wait(lambda now: now.mode not in BUSY, PATIENCE)
        assert (state.mode, state.failed) == (Mode.READY, False)
        before = state.completed
        wb.controls.rounds.value = 1
        wb.controls.button(Action.TRAIN).click()
        assert wb.driver.wait(lambda now: now.mode not in BUSY, PATIENCE).completed == before + 1
        assert "ended without closing it" not in everything(wb)


@pytest.mark.slow
def test_an_interrupt_of_the_blocking_form_stops_writes_a_checkpoint_and_returns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with workbench.new(tiny_config(tmp_path / "base", rounds=50), tmp_path / "run") as wb:

        def interrupt() -> None:
            wb.driver.wait(lambda now: now.completed >= 1, PATIENCE)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        wb.train()
        assert "a checkpoint is written" in capsys.readouterr().out
        assert wb.driver.state.mode is Mode.READY
        assert 1 <= wb.driver.state.completed < 50
        done = wb.driver.state.completed
        wb.train(1)
        assert wb.driver.state.completed == done + 1
        wb.fork("fork", 1, learner__learning_rate=1e-4)
        assert wb.run == tmp_path / "fork"
        with pytest.raises(InputError, match="leave out slashes"):
            wb.fork("a/b")
        with pytest.raises(SparkError, match="learning_rte"):
            wb.fork("other", learner__learning_rte=1)


def test_a_cell_that_began_a_run_gives_the_same_panels_when_it_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path / "base", rounds=50, evaluation__every=0)
    with workbench.new(config) as wb:
        wb.train(1)
        assert workbench.new(config) is wb  # where Stop is, not a second run beside it
        assert workbench.new(config, wb.run) is wb
        assert "begun with these settings" in capsys.readouterr().out
        with pytest.raises(InputError, match="holds a run already"):
            workbench.new(config, wb.run, seed=5)
    with workbench.new(config, tmp_path / "another") as another:
        assert another is not wb


def test_new_refuses_a_folder_with_a_run_and_unknown_presets_in_one_sentence(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"holds a run already: workbench\.open"):
        workbench.new("quickstart", recorded)
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell().run_cell("import workbench; workbench.new('quickstrat')")
    shown = capsys.readouterr().out
    assert 'There is no preset or file "quickstrat" (did you mean "quickstart"?)' in shown
    assert "Traceback" not in shown
    assert "File" not in shown


def test_importing_workbench_loads_no_widgets_and_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = "{'ipywidgets', 'plotly', 'torch', 'pandas', 'pyarrow'}"
    code = f"import sys, workbench; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "itables" else object())
    with pytest.raises(InputError, match=r"need itables: install the extra `notebook`"):
        workbench.open("anywhere")
