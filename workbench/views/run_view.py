"""One run to look at: the door to every view, with the small memory that makes looking again cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from spark_kernel.errors import RunFolderError
from spark_kernel.runs.bundles import HELD_OUT
from spark_kernel.runs.reader import RunReader
from workbench.views.chains import SelfCorrection, self_correction
from workbench.views.evaluation_rollouts import evaluation_detail, evaluation_table
from workbench.views.funnel import Funnel, funnel
from workbench.views.headline import HeadlineFigure, headline
from workbench.views.judge import JudgeDetail, judge_of_evaluation, judge_of_round
from workbench.views.recycled import Lineage, RecycledRow, lineage, recycled_rows
from workbench.views.rollout_detail import RolloutDetail, rollout_detail
from workbench.views.rollouts import RolloutTable, rollout_table
from workbench.views.round_tables import RoundTables, TableCache
from workbench.views.series import MOST_POINTS, RoundSeries, round_series
from workbench.views.snapshot import RunSnapshot, run_config, run_snapshot

LONGEST_WAIT = 20
"""Later rounds that are searched where a task may wait for ever (`recycle.max_age` none)."""


class RunView:
    """Reads one run; call a method again for news. Methods may be called from any thread.

    A round number may be a finished round or, where phases of it are recorded, the round in flight.

    Args:
        run: the run's folder, or a reader of it.

    Raises:
        RunFolderError: missing, not a run, damaged, or written by a newer version. Every method may raise it, too, for
            a round that is not there or a damaged file.
    """

    def __init__(self, run: str | Path | RunReader) -> None:
        self.reader = run if isinstance(run, RunReader) else RunReader(run)
        self._cache = TableCache(self.reader)

    def snapshot(self) -> RunSnapshot:
        """State, rounds, checkpoints, versions, differences from the preset."""
        return run_snapshot(self.reader)

    def rounds(self) -> tuple[int, ...]:
        """The rounds that can be shown, ascending: the finished ones, and the one in flight if a phase is recorded."""
        rounds = self.reader.rounds
        flying = {info.round for info in self.reader.phases()} - set(rounds)
        return (*rounds, *sorted(flying))

    def suites(self) -> tuple[str, ...]:
        """The suites that have an evaluation; "held_out", the run's own, first."""
        return tuple(self.reader.suites)

    def evaluations(self, suite: str = HELD_OUT) -> tuple[int, ...]:
        """The rounds after which there is an evaluation of a suite, ascending; 0 is before the first round."""
        return tuple(self.reader.evaluated(suite))

    def series(self, most: int = MOST_POINTS) -> RoundSeries:
        """Figures over rounds for the dashboard, thinned to about `most` points a curve."""
        return round_series(self.reader, most)

    def headline(self) -> tuple[HeadlineFigure, ...]:
        """Solved, judges itself, after the loop: from the first held-out evaluation to the newest."""
        return headline(self.reader, self.series())

    def tables(self, round: int) -> RoundTables:
        """The recorded rows of a round."""
        return self._cache.round(round)

    def rollouts(self, rounds: Sequence[int]) -> RolloutTable:
        """The outputs of rounds as rows to filter."""
        return rollout_table(self._cache, rounds, ahead=self._ahead())

    def rollout(
        self, round: int, rollout_id: str, decode: Callable[[Sequence[int]], Sequence[str]] | None = None
    ) -> RolloutDetail:
        """Everything about one output; `decode` turns token ids into the text of each."""
        return rollout_detail(self._cache, round, rollout_id, decode=decode, ahead=self._ahead())

    def evaluation_rollouts(self, round: int, suite: str = HELD_OUT) -> RolloutTable:
        """The outputs of the evaluation of a suite after a round; the column `period` holds the part."""
        return evaluation_table(self.reader, round, suite)

    def evaluation_rollout(
        self,
        round: int,
        rollout_id: str,
        decode: Callable[[Sequence[int]], Sequence[str]] | None = None,
        suite: str = HELD_OUT,
    ) -> RolloutDetail:
        """Everything about one output of an evaluation."""
        return evaluation_detail(self.reader, round, rollout_id, decode=decode, suite=suite)

    def recycled(self, round: int) -> tuple[RecycledRow, ...]:
        """The tasks made in a round and what became of them so far."""
        return recycled_rows(self._cache, round, ahead=self._ahead())

    def lineage(self, task_id: str, made_round: int) -> Lineage:
        """A recycled task from its sources to the update."""
        return lineage(self._cache, task_id, made_round, ahead=self._ahead())

    def funnel(self, rounds: Sequence[int]) -> Funnel:
        """From opportunities to the update, for tasks made in `rounds`; counts add up."""
        return funnel(self._cache, rounds, ahead=self._ahead())

    def self_correction(self, round: int, suite: str = HELD_OUT) -> SelfCorrection | None:
        """The test-time loop of the evaluation of a suite after a round; None where that evaluation had none."""
        return self_correction(self.reader, round, suite)

    def judge(self, round: int, *, held_out: bool, suite: str = HELD_OUT) -> JudgeDetail:
        """The judges of the evaluation of a suite after a round (`held_out`), or of the training round."""
        return judge_of_evaluation(self.reader, round, suite) if held_out else judge_of_round(self._cache, round)

    def _ahead(self) -> int:
        """Rounds after which nothing more is said about a round's outputs: a task waits `max_age` rounds, and what is
        made of reflections is made one stage later.
        """
        try:
            oldest = run_config(self.reader.config_yaml).recycle.max_age
        except RunFolderError:
            oldest = None
        return LONGEST_WAIT if oldest is None else oldest + 1
