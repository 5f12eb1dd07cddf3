"""An engine that fails in the middle of a run, or has something to say: the run can go on, and the report tells."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spark_kernel.errors import EngineError, StaleEngineError
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.events import Event
from spark_kernel.training.lifecycle import resume_run, start_run
from spark_kernel.training.trainer import Trainer
from tests.helpers.runs import fingerprint, tiny_config
from workbench.reporting.run_report import mismatch_lines, print_report
from workbench.reporting.terminal import Terminal

pytestmark = pytest.mark.slow
LEFT_OUT = "The vLLM server at http://host:8000 cannot be reached: its prompts go to the other servers"


class Troubled:
    """The run's engine, but for calls that fail the given number of times, and a remark while it samples."""

    def __init__(self, trainer: Trainer, **failures: int) -> None:
        self._engine = trainer.parts.engine
        self._remarks = trainer.parts.remarks
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _fail(self, name: str, error: Exception) -> None:
        if self._failures.get(name, 0) > 0:
            self._failures[name] -= 1
            raise error

    def sample(self, *arguments: Any, **named: Any) -> Any:
        self._fail("sample", EngineError("No vLLM server is left to sample with."))
        self._remarks.add(LEFT_OUT)
        return self._engine.sample(*arguments, **named)

    def take(self, published: Any) -> None:
        self._fail("take", StaleEngineError("After the full weights were pushed they differ."))
        self._engine.take(published)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trouble")


@pytest.fixture(scope="module")
def undisturbed(base: Path) -> dict[str, Any]:
    with start_run(tiny_config(base, rounds=2, evaluation__every=0), base / "undisturbed") as trainer:
        trainer.train()
    return fingerprint(base / "undisturbed")


def troubled(base: Path, run: Path, **failures: int) -> Trainer:
    trainer = start_run(tiny_config(base, rounds=2, evaluation__every=0), run)
    trainer.parts = replace(trainer.parts, engine=Troubled(trainer, **failures))
    return trainer


@pytest.mark.parametrize("trouble", ["sample", "take"])
def test_a_phase_that_an_engine_failed_in_is_called_again(
    base: Path, undisturbed: dict[str, Any], tmp_path: Path, trouble: str
) -> None:
    """In particular the update is not done twice where only the push after it failed."""
    with troubled(base, tmp_path / "run", **{trouble: 1}) as trainer:
        with pytest.raises((EngineError, StaleEngineError)):
            trainer.train()
        trainer.train()
    assert fingerprint(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("trouble", ["sample", "take"])
def test_a_run_whose_engine_failed_is_resumed(
    base: Path, undisturbed: dict[str, Any], tmp_path: Path, trouble: str
) -> None:
    with pytest.raises((EngineError, StaleEngineError)), troubled(base, tmp_path / "run", **{trouble: 1}) as trainer:
        trainer.train()
    with resume_run(tmp_path / "run") as trainer:
        trainer.train()
    assert fingerprint(tmp_path / "run") == undisturbed


def test_what_an_engine_says_is_heard_at_once_recorded_and_reported(base: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    output = io.StringIO()
    trainer = troubled(base, tmp_path / "run")
    trainer.listeners += [heard.append, Terminal(Console(file=output, width=200))]
    with trainer:
        trainer.roll_out()
        assert [event.data["text"] for event in heard if event.name == "remark"] == [LEFT_OUT]
        assert output.getvalue() == f"round 1  {LEFT_OUT}\n"
    with resume_run(tmp_path / "run") as trainer:  # the roll-out is not repeated, what was said of it is kept
        trainer.round()
    reader = RunReader(tmp_path / "run")
    assert reader.report(1).notes == (LEFT_OUT,)
    assert [event["text"] for event in reader.events() if event["event"] == "remark"] == [LEFT_OUT]


def test_the_report_shows_how_far_the_sampler_was_from_the_learner(base: Path, undisturbed: dict[str, Any]) -> None:
    reader = RunReader(base / "undisturbed")
    output = io.StringIO()
    print_report(reader, Console(file=output, width=200))
    assert "Sampler against learner: " in output.getvalue()
    report = reader.report(1)
    policy, reward = (
        replace(update, sampler_mismatch={"mean_abs_logprob": mean, "share_over_1_percent": 0.25, "share_bounded": 0.5})
        for update, mean in zip(report.updates, (2e-3, 4e-3), strict=True)
    )
    (line,) = mismatch_lines([replace(report, updates=(policy,)), replace(report, round=2, updates=(reward,))])
    assert "3.0e-03 nats per token (largest 4.0e-03, round 2)" in line
    assert "at most 25% of an update's tokens differ by over 1%, 50% had their weight bounded" in line
    assert mismatch_lines([replace(report, updates=())]) == []
