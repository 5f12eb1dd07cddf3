"""What a round asks of its engine, and in which order: sleep, update, wake, take the new weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_kernel.errors import Stopped
from spark_kernel.training.lifecycle import start_run
from tests.helpers.recording_engine import record
from tests.helpers.runs import tiny_config

UPDATE = ["sleep", "update", "wake"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("order")


@pytest.mark.slow
def test_every_update_lies_between_sleep_and_wake_and_its_weights_are_taken_before_anything_is_sampled(
    base: Path, tmp_path: Path
) -> None:
    with start_run(tiny_config(base, evaluation__every=0), tmp_path / "run") as trainer:
        calls = record(trainer)
        trainer.round()
    assert [call for call in calls if call != "sample"] == [*UPDATE, ("take", 1), *UPDATE, ("take", 2)]
    assert calls[0] == "sample"
    assert calls[calls.index(("take", 1)) + 1] == "sample"
    assert calls[-1] == ("take", 2)


def test_a_stopped_update_goes_on_with_the_engine_asleep(base: Path, tmp_path: Path) -> None:
    """Nothing is taken of an update that is not finished, and the engine sleeps again for the rest of it."""
    with start_run(tiny_config(base, evaluation__every=0), tmp_path / "run") as trainer:
        calls = record(trainer)
        for phase in (trainer.roll_out, trainer.verify, trainer.recycle):
            phase()
        del calls[:]
        trainer.stop.ask()
        with pytest.raises(Stopped):
            trainer.update()
        trainer.stop.clear()
        trainer.update()
    assert calls == ["sleep", "update", *UPDATE, ("take", 1)]
