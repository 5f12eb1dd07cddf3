"""Rollouts as rows to filter; everything about one of them is in `rollout_detail`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.records import Kind
from workbench.views.round_tables import RoundTables, TableCache
from workbench.views.verdicts import Verdict, verdicts_about

UNREADABLE = ("none", "ambiguous")
LOOK_BACK = 50
"""Earlier rounds that are searched for the same problem."""
SOURCES_BACK = 8
"""Rounds that are searched for the answers that a comparison shows: a task waits, and a reflection is judged later."""
COLUMNS = (
    "round", "period", "group_index", "sample", "id", "task_id", "problem_id", "kind", "origin", "view", "question",
    "label", "gold", "answer", "correct", "reward", "advantage", "parse", "reason", "truncated", "tokens",
    "mean_logprob", "seconds", "policy_version", "judged_right", "judged_wrong", "before", "reflected_on", "pair",
    "made_round", "source_correct", "text",
)  # fmt: skip
"""The columns of `RolloutTable.table`."""


class Preset(StrEnum):
    """Filters that answer a question."""

    ALL = "all"
    """Every output."""
    FOOLED = "wrong, but accepted"
    """Wrong answers that at least one verdict takes for right."""
    REJECTED_RIGHT = "right, but rejected"
    """Right answers that at least one verdict takes for wrong."""
    JUDGED_WRONG = "judge wrong"
    """Verdicts, on one answer or on two, that could be read and are wrong."""
    PAIRS_WRONG = "pairs judged wrong"
    """Those of them on two answers."""
    SPOILT = "spoilt by reflection"
    """Reflections on a right answer that ended wrong."""
    MENDED = "corrected by reflection"
    """Reflections on a wrong answer that ended right."""
    DISAGREES = "judge disagrees with verifier"
    """Answers about which at least one verdict is wrong, and verdicts that are wrong."""
    UNPARSEABLE = "unreadable"
    """Nothing could be read, or boxes disagree."""
    CHANGED = "changed since last time"
    """The same problem was met before (in an earlier round; in an evaluation: the same output of the evaluation
    before) and was right then and is wrong now, or the other way round."""
    WRONG = "wrong"
    """The verifier says wrong."""
    TRUNCATED = "truncated"
    """Cut off at the length limit."""


@dataclass(frozen=True, slots=True)
class RolloutTable:
    """Outputs as rows of an Arrow table with the columns `COLUMNS`.

    `period` is the part in an evaluation. `label` is what the output is scored against; `gold` the problem's answer.
    `tokens`: length of the output. `mean_logprob` [nats per token]. `judged_right`, `judged_wrong`: how many readable
    verdicts of this and the next rounds take this output for right or wrong (a pairwise verdict counts for both
    candidates); 0 where it was never judged. `before`: what became of the same problem the last time, "right" or
    "wrong" (a group counts as right where at least half of it was), null where it was never met. `reflected_on`:
    whether the answer that a reflection looked at was "right" or "wrong". `pair`: the two answers of a comparison as it
    showed them, A first; null elsewhere, an answer null where it was none or is not kept. `made_round`: in which round
    the task was made; `source_correct`: whether each answer that it shows was right.
    """

    table: pa.Table

    @property
    def count(self) -> int:
        """Rows."""
        return self.table.num_rows

    def rows(self, start: int = 0, most: int | None = None) -> list[dict[str, Any]]:
        """Rows as mappings from column to value, `most` of them from `start`."""
        return self.table.slice(start, most).to_pylist()

    def filter(
        self,
        preset: Preset | str = Preset.ALL,
        *,
        text: str = "",
        kind: str | None = None,
        origin: str | None = None,
        period: str | None = None,
        correct: bool | None = None,
        problem_id: str | None = None,
    ) -> RolloutTable:
        """The rows that meet every condition given.

        Args:
            preset: a `Preset` or its value.
            text: searched, without regard to case, in question, output, answer, reason and ids.

        Raises:
            InputError: no such preset.
        """
        try:
            chosen = Preset(preset)
        except ValueError:
            raise InputError(f'There is no filter "{preset}": choose one of {", ".join(Preset)}.') from None
        masks = [mask for mask in (_preset_mask(self.table, chosen),) if mask is not None]
        for column, wanted in (("kind", kind), ("origin", origin), ("period", period), ("problem_id", problem_id)):
            if wanted is not None:
                masks.append(pc.equal(self.table[column], wanted))
        if correct is not None:
            masks.append(pc.equal(self.table["correct"], correct))
        if text.strip():
            masks.append(_text_mask(self.table, text.strip()))
        table = self.table
        if masks:
            mask = masks[0]
            for other in masks[1:]:
                mask = pc.and_kleene(mask, other)
            table = table.filter(pc.fill_null(mask, False))
        return RolloutTable(table)

    def counts(self) -> dict[str, int]:
        """How many rows each preset would leave."""
        return {str(preset): self.filter(preset).count for preset in Preset}


def rollout_table(cache: TableCache, rounds: Sequence[int], *, ahead: int = 1) -> RolloutTable:
    """The outputs of rounds, finished or in flight.

    Args:
        ahead: how many later rounds are searched for verdicts about them (`verdicts_about`).

    Raises:
        RunFolderError: no such round.
    """
    parts = []
    for round in rounds:
        tables = cache.round(round)
        verdicts = verdicts_about(cache, round, ahead)
        before = _before(cache, tables)
        problems, answers = _problems(cache, tables), _answers(cache, tables)
        parts.append(output_rows(tables.rollouts, tables.tasks, problems, "period", verdicts, before, answers))
    if not parts:
        raise RunFolderError("No round was given to show outputs of.")
    return RolloutTable(pa.concat_tables(parts))


def output_rows(
    rollouts: pa.Table,
    tasks: pa.Table,
    problems: pa.Table,
    place: str,
    verdicts: Mapping[str, Sequence[Verdict]],
    before: Callable[[Mapping[str, Any]], str | None],
    answers: Mapping[str, str | None],
) -> pa.Table:
    """One row per output with the columns `COLUMNS`, of a round or an evaluation (`place`: period or part).

    Args:
        answers: by rollout id, of whatever a comparison may show.
    """
    known = {row["id"]: row for row in problems.select(["id", "question", "gold"]).to_pylist()}
    owners = {
        (row[place], row["group_index"]): row
        for row in tasks.select(
            [place, "group_index", "label", "view", "sources", "source_correct", "made_round"]
        ).to_pylist()
    }
    light = rollouts.select(["round", place, "group_index", "sample", "id", "problem_id", "kind"]).to_pylist()
    tasks_of = [owners[row[place], row["group_index"]] for row in light]
    counted = [_counted(verdicts.get(row["id"], ())) for row in light]
    lengths = pc.list_value_length(rollouts["token_ids"])
    made = {
        "period": rollouts[place],
        "view": pa.array([task["view"] for task in tasks_of], pa.string()),
        "question": pa.array([_question(row, known) for row in light], pa.string()),
        "label": pa.array([task["label"] for task in tasks_of], pa.string()),
        "gold": pa.array([known.get(row["problem_id"], {}).get("gold") for row in light], pa.string()),
        "tokens": pc.cast(lengths, pa.int64()),
        "mean_logprob": pa.array(_means(rollouts["logprobs"]), pa.float64()),
        "made_round": pa.array([task["made_round"] for task in tasks_of], pa.int64()),
        "source_correct": pa.array([task["source_correct"] for task in tasks_of], pa.list_(pa.bool_())),
        "judged_right": pa.array([right for right, _ in counted], pa.int64()),
        "judged_wrong": pa.array([wrong for _, wrong in counted], pa.int64()),
        "before": pa.array([before(row) for row in light], pa.string()),
        "reflected_on": pa.array(
            [_reflected_on(row, task) for row, task in zip(light, tasks_of, strict=True)], pa.string()
        ),
        "pair": pa.array(
            [
                [answers.get(source) for source in task["sources"]] if row["kind"] == Kind.PAIRWISE else None
                for row, task in zip(light, tasks_of, strict=True)
            ],
            pa.list_(pa.string()),
        ),
    }
    return pa.table({name: made[name] if name in made else rollouts[name] for name in COLUMNS})


def _question(row: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> str | None:
    return known.get(row["problem_id"], {}).get("question")


def _reflected_on(row: Mapping[str, Any], task: Mapping[str, Any]) -> str | None:
    if row["kind"] != Kind.REFLECTION or not task["source_correct"] or task["source_correct"][0] is None:
        return None
    return "right" if task["source_correct"][0] else "wrong"


def _problems(cache: TableCache, tables: RoundTables) -> pa.Table:
    """The problems of a round's outputs: its own, and those of earlier rounds about which it judges and reflects."""
    columns = ["id", "question", "gold"]
    parts = [tables.problems.select(columns)]
    wanted = set(tables.rollouts["problem_id"].to_pylist()) - set(tables.problems["id"].to_pylist())
    for round in range(tables.round - 1, max(0, tables.round - SOURCES_BACK), -1):
        if not wanted or not cache.has(round):
            break
        problems = cache.round(round).problems.select(columns)
        parts.append(problems.filter(pc.is_in(problems["id"], pa.array(sorted(wanted), pa.string()))))
        wanted -= set(parts[-1]["id"].to_pylist())
    return pa.concat_tables(parts)


def _answers(cache: TableCache, tables: RoundTables) -> dict[str, str | None]:
    """The answers that comparisons of a round show, by rollout id, looked for from this round backwards."""
    pairs = tables.tasks.filter(pc.equal(tables.tasks["kind"], str(Kind.PAIRWISE)))
    wanted = {source for sources in pairs["sources"].to_pylist() for source in sources}
    found: dict[str, str | None] = {}
    for round in range(tables.round, max(0, tables.round - SOURCES_BACK), -1):
        if not wanted or not cache.has(round):
            break
        rows = (tables if round == tables.round else cache.round(round)).rollouts
        ids, answers = rows["id"].to_pylist(), rows["answer"].to_pylist()
        found |= {name: answer for name, answer in zip(ids, answers, strict=True) if name in wanted}
        wanted -= found.keys()
    return found


def _counted(verdicts: Iterable[Verdict]) -> tuple[int, int]:
    said = [verdict.says_right for verdict in verdicts if verdict.says_right is not None]
    return sum(said), len(said) - sum(said)


def _means(logprobs: pa.ChunkedArray) -> list[float | None]:
    return [sum(values) / len(values) if values else None for values in logprobs.to_pylist()]


def _before(cache: TableCache, tables: RoundTables) -> Callable[[Mapping[str, Any]], str | None]:
    """What became of a solve task's problem the last time within `LOOK_BACK` rounds."""
    wanted = set(tables.problems["id"].to_pylist())
    found: dict[str, str] = {}
    for round in range(tables.round - 1, max(0, tables.round - 1 - LOOK_BACK), -1):
        if not wanted - set(found):
            break
        for problem, share in cache.solved(round).items():
            if problem in wanted and problem not in found:
                found[problem] = "right" if share >= 0.5 else "wrong"
    return lambda row: found.get(row["problem_id"]) if row["kind"] == Kind.SOLVE else None


def _preset_mask(table: pa.Table, preset: Preset) -> Any:
    wrong, right = pc.equal(table["correct"], False), pc.equal(table["correct"], True)
    if preset is Preset.FOOLED:
        return pc.and_(wrong, pc.greater(table["judged_right"], 0))
    kind = table["kind"]
    judges = pc.is_in(kind, pa.array(["pointwise", "pairwise"]))
    misjudged = pc.and_(judges, pc.and_(wrong, pc.equal(table["parse"], "ok")))
    if preset is Preset.REJECTED_RIGHT:
        return pc.and_(right, pc.greater(table["judged_wrong"], 0))
    if preset is Preset.JUDGED_WRONG:
        return misjudged
    if preset is Preset.PAIRS_WRONG:
        return pc.and_(misjudged, pc.equal(kind, "pairwise"))
    if preset is Preset.SPOILT:
        return pc.and_kleene(pc.equal(table["reflected_on"], "right"), wrong)
    if preset is Preset.MENDED:
        return pc.and_kleene(pc.equal(table["reflected_on"], "wrong"), right)
    if preset is Preset.DISAGREES:
        answers = pc.or_(
            pc.and_(wrong, pc.greater(table["judged_right"], 0)), pc.and_(right, pc.greater(table["judged_wrong"], 0))
        )
        return pc.or_(answers, misjudged)
    if preset is Preset.UNPARSEABLE:
        return pc.is_in(table["parse"], pa.array(UNREADABLE))
    if preset is Preset.CHANGED:
        now = pc.if_else(table["correct"], "right", "wrong")
        return pc.not_equal(table["before"], now)
    if preset is Preset.WRONG:
        return wrong
    if preset is Preset.TRUNCATED:
        return table["truncated"]
    return None


def _text_mask(table: pa.Table, text: str) -> Any:
    mask = None
    for column in ("question", "text", "answer", "reason", "id", "problem_id"):
        found = pc.fill_null(pc.match_substring(table[column], text, ignore_case=True), False)
        mask = found if mask is None else pc.or_(mask, found)
    return mask
