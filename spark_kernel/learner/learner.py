"""The seam between the trainer and whatever moves the weights: records in, records out, no tensor crosses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from spark_kernel.errors import StopCheck
from spark_kernel.models.published_weights import PublishedWeights, Wanted
from spark_kernel.records import Exclusion, Group, Period, UpdateStats


class Learner(Protocol):
    """Moves the policy by a period's groups, and keeps what that needs.

    `TorchLearner` does it in this process. One that drives worker processes has the same methods.
    """

    @property
    def version(self) -> int:
        """Completed updates.

        Raises:
            StaleEngineError: the weights are in mid-update and have no version.
        """
        ...

    @property
    def in_update(self) -> bool:
        """Whether the weights are in mid-update, after a stop; `update` with the same groups finishes it."""
        ...

    def update(
        self,
        groups: Sequence[Group],
        *,
        period: Period,
        round: int,
        on_progress: Callable[[int, int], None] = lambda _done, _all: None,
        check_stop: StopCheck = lambda: None,
    ) -> tuple[UpdateStats, tuple[Exclusion, ...]]:
        """Train on a period's groups; the version goes up by one.

        A stop keeps the optimizer steps that are done and discards the gradients of the unfinished one. Called again
        with the same groups it goes on from there.

        Args:
            groups: verified groups with advantages.
            period: for the order of groups and the report.
            round: likewise.
            on_progress: called with (optimizer steps done, optimizer steps in all).
            check_stop: called between micro-batches; raises `Stopped`.

        Returns:
            What the update did, and every rollout that was left out of the loss.

        Raises:
            Stopped: raised by `check_stop`.
            NonFiniteError: a NaN or infinity in loss or gradient; nothing of that step was applied.
            PhaseError: another update is half done.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs to go on bit for bit; also in mid-update, after a stop."""
        ...

    def load(self, folder: Path) -> None:
        """Put a learner, fresh from the run's initial model, into the stored state.

        Raises:
            ModelError: the stored weights are another model's.
        """
        ...

    def publish(self, wanted: Wanted = Wanted()) -> PublishedWeights:
        """The weights as they are, described for an engine to take, in the first wanted form that can be had.

        Raises:
            StaleEngineError: they are in mid-update.
            ModelError: none of the forms can be had.
        """
        ...
