"""The notebook's controls by their traits and clicks, on real runs of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: the extra `notebook` brings it")

from tests.helpers.runs import tiny_config
from workbench.notebook.configuration import Configuration
from workbench.notebook.controls import Controls
from workbench.notebook.driver import Driver
from workbench.notebook.driver_state import BUSY, Action, DriverState, Mode
from workbench.notebook.refresher import Refresher
from workbench.notebook.run_on_disk import RunOnDisk, Seen
from workbench.recorded import recorded_run

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
    controls.refresh(driver.state, Seen(driver.state.run))
    assert "Done: roll_out (policy period). Next: verify (policy period)." in controls.message.value
    assert controls.button(Action.EVALUATE).disabled
    assert controls.button(Action.RESUME).tooltip == "The run is held already."


@pytest.mark.slow
def test_train_stop_and_fork_by_clicks_while_a_refresher_keeps_the_panel_up_to_date(
    driver: Driver, tmp_path: Path
) -> None:
    assert driver.config is not None
    form = Configuration(driver.config)
    controls = Controls(driver, form)
    refresher = Refresher(driver)
    refresher.add(controls.refresh)
    refresher.add(form.refresh)
    controls.rounds.value = 3
    controls.button(Action.TRAIN).click()
    driver.wait(lambda state: state.completed == 1, PATIENCE)
    controls.button(Action.STOP).click()
    state = driver.wait(idle, PATIENCE)
    assert state.mode is Mode.READY
    refresher.refresh_now()
    controls.back_to.value = 1
    controls.fork_name.value = "../outside"
    controls.button(Action.FORK).click()
    assert "without slashes" in controls.message.value
    controls.fork_name.value = "fork"
    assert form.fields["seed"].disabled  # a fork keeps it
    form.fields["learner.learning_rate"].value = "-1"
    assert controls.button(Action.FORK).disabled
    assert "learner.learning_rate = &#x27;-1&#x27; is refused" in controls.reasons.value
    form.fields["learner.learning_rate"].value = "0.0001"
    form.fields["evaluation.every"].value = "0"
    assert "with 2 changed settings" in controls.fork_settings.value
    controls.button(Action.FORK).click()
    state = driver.wait(idle, PATIENCE)
    assert (state.run, state.completed, state.failed) == (tmp_path / "fork", 1, False)
    refresher.refresh_now()
    assert "fork goes on from" in controls.message.value
    assert form.changed_names() == []  # the form is now about forks of the fork
    refresher.end()
    assert driver.config.learner.learning_rate == 1e-4
    assert driver.config.evaluation.every == 0


@pytest.mark.slow
def test_going_back_says_what_it_costs_and_needs_a_second_click_and_a_bad_request_lets_nothing_go(
    driver: Driver, tmp_path: Path
) -> None:
    controls = Controls(driver)

    def settled() -> DriverState:
        state = driver.wait(idle, PATIENCE)
        controls.refresh(state, RunOnDisk().look(state.run))
        return state

    driver.train(2)
    assert settled().completed == 2
    assert "never put back" in controls.button(Action.UNDO).tooltip
    assert controls.back_to.value == 2  # the newest round, not 0
    controls.button(Action.BACK).click()
    assert "stands after round 2" in controls.message.value
    controls.back_to.value = 1
    controls.button(Action.BACK).click()
    assert "takes round 2 away" in controls.message.value
    assert driver.state.completed == 2
    # Anything else in between, and it asks anew.
    controls.button(Action.CHECKPOINT).click()
    assert settled().message.startswith("Checkpoint")
    controls.button(Action.BACK).click()
    assert "takes round 2 away" in controls.message.value
    controls.button(Action.BACK).click()
    assert settled().completed == 1
    assert (driver.state.run / "discarded" / "0001" / "rounds" / "000002").is_dir()
    controls.button(Action.UNDO).click()
    assert settled().message == "The run stands after round 2 again."
    assert controls.button(Action.UNDO).disabled
    controls.back_to.value = 1
    controls.button(Action.BACK).click()
    controls.button(Action.BACK).click()
    assert settled().completed == 1

    # Requests that cannot be met are refused while the run is held, and it stays held.
    for ask in (
        lambda: driver.go_back(7),
        lambda: driver.fork(9, tmp_path / "fork"),
        lambda: driver.fork(1, tmp_path / "fork", {"seed": 5}),
        lambda: driver.fork(1, driver.state.run),
    ):
        assert ask() is None
        state = settled()
        assert (state.failed, state.mode, state.completed) == (True, Mode.READY, 1), state.message


def test_the_recorded_run_is_only_looked_at() -> None:
    before = {path: path.stat().st_mtime_ns for path in recorded_run().rglob("*")}
    driver = Driver(recorded_run())
    controls = Controls(driver)
    for action in (Action.RESUME, Action.TRAIN, Action.BACK, Action.FORK):
        assert "only to look at" in (controls.why_not(action) or "")
        assert controls.button(action).disabled
        controls.button(action).click()  # as a click does that was on its way
    assert driver.state.mode is Mode.WATCHING
    assert {path: path.stat().st_mtime_ns for path in recorded_run().rglob("*")} == before
