"""The numbers of the queries in docs/run-folder.md follow from the rows, and agree with the kernel's reports."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from spark_kernel.records import Group, Kind, Rollout, Task
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.schemas import TABLE_SCHEMAS
from spark_kernel.runs.writer import RunWriter
from tests.helpers.finished_run import ROUNDS, groups_of, record_run
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, make_evaluation, make_round
from workbench.recorded import recorded_run

DOC = Path(__file__).parents[1] / "docs" / "run-folder.md"
QUERIES = dict(re.findall(r"^```sql (\w+)\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
Row = dict[str, Any]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("runs") / "recorded")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[RunWriter]:
    with RunWriter.create(tmp_path / "fresh", CONFIG, ENVIRONMENT) as writer:
        yield writer


def by_line() -> dict[tuple[Any, ...], list[Group]]:
    """Groups by (round, period, kind, origin)."""
    found = defaultdict(list)
    for round in ROUNDS:
        for period, group in groups_of(round):
            found[round, period.value, group.task.kind.value, group.task.origin.value].append(group)
    return found


def pairs(kind: Kind) -> Iterator[tuple[int, Task, Rollout]]:
    """Round, task and rollout of every scored output of a kind."""
    for round in ROUNDS:
        for _, group in groups_of(round):
            if group.task.kind is kind:
                yield from ((round, group.task, rollout) for rollout in group.scored)


def answers(recorded: Path, name: str) -> list[Row]:
    return RunReader(recorded).query(QUERIES[name]).to_pylist()


def line_of(row: Row) -> tuple[Any, ...]:
    return row["round"], row["period"], row["kind"], row["origin"]


def close(one: float | None, two: float | None) -> bool:
    return one is two if one is None or two is None else math.isclose(one, two, rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_the_documentation_finds_something(recorded: Path, name: str) -> None:
    assert answers(recorded, name) or answers(recorded_run(), name)


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_runs_before_the_first_round_and_has_the_same_columns(
    recorded: Path, fresh: RunWriter, name: str
) -> None:
    empty = RunReader(fresh.path).query(QUERIES[name])
    assert empty.num_rows == (1 if name == "sittings" else 0)
    assert empty.schema.names == RunReader(recorded).query(QUERIES[name]).schema.names


def test_the_lines_of_a_report_follow_from_the_rows(recorded: Path) -> None:
    lines = by_line()
    rows = answers(recorded, "accuracy")
    assert len(rows) == len(lines)
    for row in rows:
        groups = lines[line_of(row)]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        scores = [r.score for r in rollouts if r.score and r.score.reward is not None]
        assert row["n"] == len(scores)
        assert row["groups"] == len(groups)
        assert row["missing"] == len(rollouts) - len(scores)
        assert row["problems"] == len({group.task.problem_id for group in groups if group.scored})
        assert close(row["reward_mean"], mean(s.reward for s in scores if s.reward is not None))
        assert close(row["accuracy"], mean(float(s.correct is True) for s in scores))
        assert close(row["unparseable"], mean(float(s.parse in ("none", "ambiguous")) for s in scores))
        assert close(row["truncated_of_all"], mean(float(r.truncated) for r in rollouts))
        assert close(row["length_mean_of_all"], mean(len(r.token_ids) for r in rollouts))


def test_the_queries_agree_with_the_reports_that_the_kernel_writes(recorded: Path) -> None:
    reader = RunReader(recorded)
    lines = {line_of(row) for row in answers(recorded, "report_lines")}
    written = {
        (report.round, stats.period.value, stats.kind.value, stats.origin.value): stats
        for report in reader.reports()
        for stats in report.kinds
    }
    assert lines == written.keys()
    for row in answers(recorded, "accuracy"):
        stats = written[line_of(row)]
        for name in ("n", "groups", "missing", "reward_mean", "accuracy", "unparseable"):
            assert close(row[name], getattr(stats, name))
    for row in answers(recorded, "groups"):
        stats = written[line_of(row)]
        for name in ("all_correct", "mixed", "all_wrong", "zero_variance"):
            assert close(row[name], getattr(stats, name))
    a_rates = {line_of(r): r["a_rate"] for r in answers(recorded, "a_rate")}
    names = ("accuracy", "balanced_accuracy", "accuracy_parsed", "coverage", "base_rate", "chance", "yes_rate")
    rows = answers(recorded, "judge")
    assert {row["kind"] for row in rows} == {"pointwise", "pairwise"}
    for row in rows:
        key = line_of(row)
        figures = written[key].judge
        assert figures is not None
        for name in (*names, "precision", "recall", "f1", "accuracy_mixed", "n"):
            assert close(row[name], figures.get(name)), (key, name)
        assert close(a_rates.get(key), figures.get("a_rate"))


def test_the_clustered_error_is_that_of_its_formula(recorded: Path) -> None:
    lines = by_line()
    compared = 0
    for row in answers(recorded, "clustered_error"):
        rewards = defaultdict(list)
        for group in lines[line_of(row)]:
            for reward in group.rewards:
                if reward is not None:
                    rewards[group.task.problem_id].append(reward)
        total = [reward for values in rewards.values() for reward in values]
        if len(rewards) < 2:
            assert row["standard_error"] is None
            continue
        m, clusters = mean(total), len(rewards)
        spread = sum(sum(reward - m for reward in values) ** 2 for values in rewards.values())
        assert close(row["standard_error"], math.sqrt(clusters / (clusters - 1) * spread) / len(total))
        compared += 1
    assert compared > 5


def test_the_transition_table_counts_right_and_wrong(recorded: Path) -> None:
    word = {True: "right", False: "wrong"}
    expected = Counter(
        (round, word[task.source_correct[0]], word[rollout in Group(task, (rollout,)).correct])
        for round, task, rollout in pairs(Kind.REFLECTION)
    )
    rows = answers(recorded, "transitions")
    assert {(row["round"], row["before"], row["after"]): row["n"] for row in rows} == expected
    assert {(before, after) for _, before, after in expected} == {(a, b) for a in word.values() for b in word.values()}


def test_the_funnel_accounts_for_every_recycled_task(recorded: Path) -> None:
    sampled = {group.task.id for round in ROUNDS for _, group in groups_of(round)}
    excluded = {item.subject_id for round in ROUNDS for item in make_round(round)[0].exclusions} - sampled
    expected: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for round in ROUNDS:
        for task in make_round(round)[0].recycled:
            counts = expected[round, task.kind.value]
            counts[0] += 1
            counts[1 if task.id in sampled else 2 if task.id in excluded else 3] += 1
    rows = answers(recorded, "funnel")
    found = {(r["round"], r["kind"]): [r["made"], r["sampled"], r["excluded"], r["waiting"]] for r in rows}
    assert found == expected
    assert all(any(counts[place] for counts in found.values()) for place in range(4))


def test_exclusions_lengths_and_log_probabilities(recorded: Path) -> None:
    counted = Counter(
        (item.round, item.stage, item.reason.value, item.kind.value if item.kind else None)
        for round in ROUNDS
        for item in make_round(round)[0].exclusions
    )
    rows = answers(recorded, "exclusions")
    assert {(r["round"], r["stage"], r["reason"], r["kind"]): r["n"] for r in rows} == counted
    tokens: Counter[tuple[int, str]] = Counter()
    logprobs: dict[tuple[int, str], list[float]] = defaultdict(list)
    for (round, _, kind, _), groups in by_line().items():
        for group in groups:
            for rollout in group.rollouts:
                tokens[round, kind] += len(rollout.token_ids)
                logprobs[round, kind] += rollout.logprobs
    found: Counter[tuple[int, str]] = Counter()
    for row in answers(recorded, "lengths"):
        found[row["round"], row["kind"]] += int(row["tokens"])
    assert found == tokens
    for row in answers(recorded, "logprobs"):
        assert close(row["mean_logprob"], mean(logprobs[row["round"], row["kind"]]))


def test_the_confusion_matrix_and_the_fooled_judge(recorded: Path) -> None:
    expected: Counter[tuple[int, str, str, str]] = Counter()
    fooled: Counter[str] = Counter()
    wrong = {r.id for round in ROUNDS for _, g in groups_of(round) for r in g.wrong}
    for kind in (Kind.POINTWISE, Kind.PAIRWISE):
        for round, task, rollout in pairs(kind):
            assert rollout.score is not None
            readable = rollout.score.parse == "ok" and rollout.answer
            expected[round, kind.value, task.label, readable or "unreadable"] += 1
            if kind is Kind.POINTWISE and rollout.answer == "Yes" and task.sources[0] in wrong:
                fooled[task.sources[0]] += 1
    rows = answers(recorded, "confusion")
    assert {(r["round"], r["kind"], r["label"], r["verdict"]): r["n"] for r in rows} == expected
    assert {row["id"]: row["judged_right"] for row in answers(recorded, "fooled")} == fooled


def test_the_methods_accuracy_follows_from_the_samples_they_chose(recorded: Path) -> None:
    rows = answers(recorded, "methods")
    assert [(row["round"], row["line"]) for row in rows] == [(0, "vote"), (3, "vote")]
    for row in rows:
        records, summary = make_evaluation(row["round"])
        chosen = summary["lines"]["vote"]["chosen"]  # type: ignore[index]
        scores = [g.rollouts[i].score for g, i in zip(records.groups["solve"], chosen, strict=True)]
        found = [score.correct for score in scores if score is not None and score.correct is not None]
        assert row["n"] == len(found)
        assert close(row["accuracy"], mean(map(float, found)))
        assert (row["tokens"], row["budget"], row["samples_mean"]) == (70, 90, 1.5)


def test_updates_queue_and_evaluations(recorded: Path) -> None:
    reports = [make_round(round)[2] for round in ROUNDS]
    updates = [stats for report in reports for stats in report.updates]
    rows = answers(recorded, "updates")
    assert [row["loss"] for row in rows] == [stats.loss for stats in updates]
    assert rows[-1]["steps_so_far"] == sum(stats.optimizer_steps for stats in updates)
    assert [row["queue_length"] for row in answers(recorded, "queue")] == [report.queue_length for report in reports]
    assert [row["loss"] for row in answers(recorded, "loss_by_kind")] == [s.by_kind["solve"]["loss"] for s in updates]
    for row in answers(recorded, "summaries"):
        assert row["solve_accuracy"] == make_evaluation(row["round"])[1]["lines"]["solve"]["accuracy"]["value"]  # type: ignore[index]
    for row in answers(recorded, "held_out"):
        groups = make_evaluation(row["round"])[0].groups[row["part"]]
        scored = [r.score.correct for group in groups for r in group.scored if r.score]
        assert row["n"] == len(scored)
        assert close(row["accuracy"], mean(map(float, map(bool, scored))))


def test_the_documentation_names_every_column() -> None:
    text = DOC.read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", text))
    for name, schema in TABLE_SCHEMAS.items():
        assert name in words
        missing = set(schema.names) - words
        assert name == "kind_stats" or not missing, (name, missing)
    assert len(QUERIES) > 20
