"""The worker thread behind the notebook's controls, on real runs of a tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import start_run
from tests.helpers.runs import fingerprint, tiny_config
from workbench.notebook.driver import Driver
from workbench.notebook.driver_state import BUSY, Action, DriverState, Mode

pytestmark = pytest.mark.slow

PATIENCE = 120.0


def idle(state: DriverState) -> bool:
    return state.mode not in BUSY


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("driver")


@pytest.fixture
def driver(base: Path, tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path / "run", tiny_config(base))
    yield driver
    driver.end()


def test_a_round_phase_by_phase(driver: Driver) -> None:
    assert driver.state.mode is Mode.NEW
    assert driver.why_not(Action.STOP) == "Nothing is being done."
    assert driver.phase() is None
    state = driver.wait(idle, PATIENCE)
    assert (state.mode, state.due) == (Mode.READY, "verify (policy period)")
    assert state.message == "Done: roll_out (policy period). Next: verify (policy period)."
    assert driver.why_not(Action.EVALUATE) == "Evaluation comes between rounds: finish the round first."
    assert driver.round() is None
    state = driver.wait(idle, PATIENCE)
    assert (state.completed, state.round) == (1, 2)
    assert state.message == "Done: round 1. Next: roll_out (policy period)."
    assert RunReader(state.run).rounds == [1]


def test_finishing_a_round_evaluates_only_where_that_is_due(base: Path, tmp_path: Path) -> None:
    driver = Driver(tmp_path / "run", tiny_config(base, rounds=3, evaluation__every=2))
    try:
        for completed, evaluated in ((1, []), (2, [2]), (3, [2, 3])):
            assert driver.round() is None
            state = driver.wait(idle, PATIENCE)
            assert (state.completed, state.failed) == (completed, False), state.message
            assert [n for n in RunReader(state.run).evaluations if n] == evaluated
    finally:
        driver.end()


def test_requests_return_at_once_and_a_second_press_is_refused(driver: Driver) -> None:
    started = threading.current_thread()
    assert driver.train(2) is None
    refused = driver.train(2)
    assert refused is not None
    assert refused.startswith("Busy: 2 rounds.")
    state = driver.wait(idle, PATIENCE)
    assert state.completed == 2
    assert threading.current_thread() is started


def test_stop_pause_go_on_and_end_as_an_undisturbed_run(driver: Driver, base: Path, tmp_path: Path) -> None:
    assert driver.train() is None
    assert driver.stop() is None  # while the model is still being loaded
    state = driver.wait(idle, PATIENCE)
    assert state.message.startswith("Stopped in round 1")
    assert driver.train() is None
    driver.wait(lambda s: s.completed == 1 and s.phase == "update", PATIENCE)
    asked = time.monotonic()
    assert driver.stop() is None
    assert driver.state.mode is Mode.STOPPING
    assert time.monotonic() - asked < 1.0
    assert driver.pause() == "A pause is on its way."
    state = driver.wait(idle, PATIENCE)
    assert state.mode is Mode.READY
    assert driver.train() is None
    driver.wait(lambda s: s.phase == "roll out" and s.round == 3, PATIENCE)
    assert driver.pause() is None
    driver.wait(idle, PATIENCE)
    assert driver.train() is None
    state = driver.wait(idle, PATIENCE)
    assert state.message == "Trained to the end of round 4."
    again = driver.train()
    assert again is None
    assert "All 4 configured rounds are done" in driver.wait(idle, PATIENCE).message
    driver.end()
    with start_run(tiny_config(base), tmp_path / "undisturbed") as trainer:
        trainer.train()
    assert fingerprint(state.run) == fingerprint(tmp_path / "undisturbed")


def test_back_fork_and_let_go(driver: Driver, tmp_path: Path) -> None:
    assert driver.why_not(Action.FORK) == "The run has no folder yet: start it first."
    driver.train(2)
    driver.wait(idle, PATIENCE)
    assert driver.go_back(1) is None
    state = driver.wait(idle, PATIENCE)
    assert (state.completed, state.failed) == (1, False)
    assert driver.go_back(7) is None
    state = driver.wait(idle, PATIENCE)
    assert state.failed
    assert state.mode is Mode.READY  # a typo lets nothing go
    assert driver.fork(1, tmp_path / "fork", {"learner": {"learning_rate": 1e-4}}) is None
    state = driver.wait(idle, PATIENCE)
    assert state.run == tmp_path / "fork"
    assert state.message == "fork goes on from run after round 1."
    assert driver.close() is None
    assert driver.wait(idle, PATIENCE).mode is Mode.WATCHING
    with Driver_holding(tmp_path / "fork") as other:
        assert driver.resume() is None
        state = driver.wait(idle, PATIENCE)
        assert state.failed
        assert "being written by process" in state.message
        assert other.state.mode is Mode.READY


def test_a_failed_start_says_why_and_leaves_the_panel_usable(base: Path, tmp_path: Path) -> None:
    config = tiny_config(base, model__path=str(tmp_path / "nowhere"))
    driver = Driver(tmp_path / "run", config)
    driver.resume()
    state = driver.wait(idle, PATIENCE)
    assert state.failed
    assert "nowhere" in state.message
    assert state.mode is Mode.NEW
    assert driver.start(tiny_config(base)) is None
    driver.resume()
    assert driver.wait(idle, PATIENCE).mode is Mode.READY
    driver.end()
    assert driver.state.mode is Mode.ENDED
    assert driver.train() == "This panel was closed: open the run again."


class Driver_holding:  # noqa: N801 - reads as a phrase where it is used
    """A second driver that holds a run."""

    def __init__(self, run: Path) -> None:
        self._driver = Driver(run)

    def __enter__(self) -> Driver:
        self._driver.resume()
        self._driver.wait(idle, PATIENCE)
        return self._driver

    def __exit__(self, *_: object) -> None:
        self._driver.end()
