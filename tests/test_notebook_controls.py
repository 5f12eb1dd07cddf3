"""The notebook's controls by their traits and clicks, on real runs of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: the extra `notebook` brings it")

from tests.helpers.runs import tiny_config
from workbench.notebook.controls import Controls
from workbench.notebook.driver import BUSY, Action, Driver, DriverState, Mode
from workbench.notebook.refresher import Refresher

PATIENCE = 120.0


def idle(state: DriverState) -> bool:
    return state.mode not in BUSY


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("controls")


@pytest.fixture
def driver(base: Path, tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path / "<run>", tiny_config(base))
    yield driver
    driver.end()


def test_buttons_that_cannot_act_are_off_and_say_why(driver: Driver) -> None:
    controls = Controls(driver)
    assert controls.button(Action.RESUME).description == "Start"
    assert controls.button(Action.STOP).disabled
    assert controls.button(Action.STOP).tooltip == "Nothing is being done."
    assert not controls.button(Action.TRAIN).disabled
    assert "The run has no folder yet" in controls.reasons.value
    assert "<b>&lt;run&gt;</b>" in controls.state_line.value  # names are text, not markup


def test_a_phase_by_a_click_and_a_second_click_is_refused_in_words(driver: Driver) -> None:
    controls = Controls(driver)
    controls.button(Action.PHASE).click()
    controls.button(Action.PHASE).click()
    assert "Busy: the next phase. Stop it first." in controls.message.value
    assert 'role="alert"' in controls.message.value
    driver.wait(idle, PATIENCE)
    controls.refresh(driver.state)
    assert "Done: roll_out (policy period). Next: verify (policy period)." in controls.message.value
    assert controls.button(Action.EVALUATE).disabled
    assert controls.button(Action.RESUME).tooltip == "The run is held already."


@pytest.mark.slow
def test_train_stop_and_fork_by_clicks_while_a_refresher_keeps_the_panel_up_to_date(
    driver: Driver, tmp_path: Path
) -> None:
    controls = Controls(driver)
    refresher = Refresher(driver)
    refresher.add(controls.refresh)
    controls.rounds.value = 3
    controls.button(Action.TRAIN).click()
    driver.wait(lambda state: state.completed == 1, PATIENCE)
    controls.button(Action.STOP).click()
    state = driver.wait(idle, PATIENCE)
    assert state.mode is Mode.READY
    controls.back_to.value = 1
    for name, settings, said in (
        ("../outside", "", "without slashes"),
        ("fork", "learning rate", "is no setting"),
        ("fork", "learner.learning_rte: 1e-4", "learning_rte"),
    ):
        controls.fork_name.value, controls.fork_settings.value = name, settings
        controls.button(Action.FORK).click()
        driver.wait(idle, PATIENCE)
        controls.refresh(driver.state)
        assert said in controls.message.value
    controls.fork_settings.value = "learner.learning_rate: 0.0001; evaluation.every: 0"
    controls.button(Action.FORK).click()
    state = driver.wait(idle, PATIENCE)
    assert (state.run, state.completed, state.failed) == (tmp_path / "fork", 1, False)
    refresher.refresh_now()
    assert "fork goes on from" in controls.message.value
    refresher.end()
    assert driver.config is not None
    assert driver.config.learner.learning_rate == 1e-4
