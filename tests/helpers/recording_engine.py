"""An engine and a learner that write down, in one list, what they are asked, and refuse what comes out of order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spark_kernel.training.trainer import Trainer


class OutOfOrderError(AssertionError):
    """A call that would go wrong on a GPU: sampling asleep, an update beside an engine that is awake."""


class RecordingEngine:
    """The run's engine, as strict as one that gives its memory away while it sleeps.

    `calls` holds "sample", "sleep", "wake" and ("take", version), in order.
    """

    def __init__(self, engine: Any, calls: list[Any]) -> None:
        self._engine = engine
        self.calls = calls
        self.asleep = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _awake(self, what: str) -> None:
        if self.asleep:
            raise OutOfOrderError(f"{what} of an engine that sleeps")

    def sample(self, *given: Any, **named: Any) -> Any:
        self._awake("sample")
        self.calls.append("sample")
        return self._engine.sample(*given, **named)

    def sleep(self) -> None:
        self.calls.append("sleep")
        self.asleep = True
        self._engine.sleep()

    def wake(self) -> None:
        self.calls.append("wake")
        self.asleep = False
        self._engine.wake()

    def take(self, published: Any) -> None:
        self._awake("take")
        self.calls.append(("take", published.version))
        self._engine.take(published)


class RecordingLearner:
    """The run's learner; "update" joins the engine's calls."""

    def __init__(self, learner: Any, engine: RecordingEngine) -> None:
        self._learner = learner
        self._recorded = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def update(self, *given: Any, **named: Any) -> Any:
        if not self._recorded.asleep:
            raise OutOfOrderError("update beside an engine that is awake")
        self._recorded.calls.append("update")
        return self._learner.update(*given, **named)


def record(trainer: Trainer) -> list[Any]:
    """From here on, what the trainer asks of its engine and learner."""
    engine = RecordingEngine(trainer.parts.engine, [])
    trainer.parts = replace(
        trainer.parts,
        engine=engine,
        learner=RecordingLearner(trainer.parts.learner, engine),
    )
    return engine.calls
