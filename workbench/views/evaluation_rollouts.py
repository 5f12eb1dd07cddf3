"""The outputs of an evaluation as rows to filter, and one of them with everything about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spark_kernel.runs.bundles import HELD_OUT
from spark_kernel.runs.reader import RunReader
from workbench.views.rollout_detail import RolloutDetail, output_detail
from workbench.views.rollouts import RolloutTable, output_rows
from workbench.views.verdicts import verdicts_in_evaluation


def evaluation_table(reader: RunReader, round: int, suite: str = HELD_OUT) -> RolloutTable:
    """The outputs of the evaluation of a suite after a round; `period` holds the part.

    Raises:
        RunFolderError: there is none.
        InputError: a name that no suite can have.
    """
    tables = {name: reader.table(name, [round], suite) for name in ("eval_rollouts", "eval_tasks", "eval_problems")}
    verdicts = verdicts_in_evaluation(tables["eval_tasks"], tables["eval_rollouts"])
    earlier = [number for number in reader.evaluated(suite) if number < round]
    before: dict[Any, str] = {}
    if earlier:
        old = reader.table("eval_rollouts", [earlier[-1]], suite)
        for row in old.select(["part", "problem_id", "sample", "kind", "correct"]).to_pylist():
            if row["correct"] is not None and row["part"] in ("solve", "loop/solve"):
                before[row["part"], row["problem_id"], row["sample"]] = "right" if row["correct"] else "wrong"
    return RolloutTable(
        output_rows(
            tables["eval_rollouts"],
            tables["eval_tasks"],
            tables["eval_problems"],
            "part",
            verdicts,
            lambda row: before.get((row["part"], row["problem_id"], row["sample"])),
            _answers(reader, tables["eval_rollouts"], suite),
        )
    )


def _answers(reader: RunReader, rollouts: Any, suite: str) -> dict[str, str | None]:
    """The answers that comparisons may show: those of this evaluation, and of the first ones, which made the pool of
    the untrained model's answers."""
    firsts = [(name, reader.evaluated(name)[:1]) for name in dict.fromkeys((HELD_OUT, suite))]
    tables = [reader.table("eval_rollouts", rounds, name) for name, rounds in firsts if rounds]
    return {
        row["id"]: row["answer"]
        for table in (*tables, rollouts)
        for row in table.select(["id", "answer"]).to_pylist()
    }  # fmt: skip


def evaluation_detail(
    reader: RunReader,
    round: int,
    rollout_id: str,
    *,
    decode: Callable[[Sequence[int]], Sequence[str]] | None = None,
    suite: str = HELD_OUT,
) -> RolloutDetail:
    """Everything about one output of an evaluation; arguments and errors as in `rollouts.rollout_detail`."""
    rollouts, tasks = (reader.table(name, [round], suite) for name in ("eval_rollouts", "eval_tasks"))
    verdicts = verdicts_in_evaluation(tasks, rollouts).get(rollout_id, [])
    table = evaluation_table(reader, round, suite)
    return output_detail(reader, round, rollout_id, table, rollouts, tasks, "part", tuple(verdicts), decode)
