"""Readers see whole rounds only, while they are written too; and the numbers of docs/run-folder.md are right."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.evaluate.kind_stats import kind_stats
from spark_kernel.records import Group, ImageRef, Kind, Period, Rollout, RoundReport, Task
from spark_kernel.runs.bundles import HELD_OUT, RoundRecords
from spark_kernel.runs.checkpoints import checkpoint_name
from spark_kernel.runs.environment import describe_environment
from spark_kernel.runs.reader import TABLES, RunReader
from spark_kernel.runs.schemas import EVALUATION_TABLES, ROUND_TABLES, SCHEMAS, TABLE_SCHEMAS
from spark_kernel.runs.status import list_runs
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import (
    CONFIG,
    ENVIRONMENT,
    OTHER_SUITE,
    fill_checkpoint,
    make_evaluation,
    make_round,
    write_round,
)
from workbench.recorded import recorded_run

DOC = Path(__file__).parents[1] / "docs" / "run-folder.md"
QUERIES = dict(re.findall(r"^```sql (\w+)\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
ROUNDS = (1, 2, 3)
Row = dict[str, Any]


def with_kinds(records: RoundRecords, report: RoundReport) -> RoundReport:
    """The report with the on-policy lines that the trainer would put there."""
    return replace(
        report, kinds=tuple(s for period, groups in records.groups.items() for s in kind_stats(groups, period))
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "recorded"
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as writer:
        for round in ROUNDS:
            records, _, report = make_round(round)
            writer.finish_round(records, with_kinds(records, report))
        for round in (0, 3):
            writer.write_evaluation(*make_evaluation(round))
            writer.write_evaluation(*make_evaluation(round, OTHER_SUITE))
        writer.write_evaluation(*make_evaluation(2, OTHER_SUITE))
        writer.write_checkpoint(checkpoint_name(3), fill_checkpoint)
        writer.close("finished")
    return run


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[RunWriter]:
    with RunWriter.create(tmp_path / "fresh", CONFIG, ENVIRONMENT) as writer:
        yield writer


def groups_of(round: int) -> Iterator[tuple[Period, Group]]:
    for period, groups in make_round(round)[0].groups.items():
        for group in groups:
            yield period, group


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


# The queries of the documentation ------------------------------------------------------------------------------------


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


# Tables and queries --------------------------------------------------------------------------------------------------


def test_tables_hold_the_chosen_rounds(recorded: Path) -> None:
    reader = RunReader(recorded)
    counts = {round: sum(len(group.rollouts) for _, group in groups_of(round)) for round in ROUNDS}
    assert reader.table("rollouts").num_rows == sum(counts.values())
    assert reader.table("rollouts", [2]).num_rows == counts[2]
    assert set(reader.table("rollouts", [3, 1])["round"].to_pylist()) == {1, 3}
    assert reader.table("kind_stats", [1])["round"].to_pylist() == [1] * len(reader.report(1).kinds)
    assert reader.table("evaluations", suite=HELD_OUT)["round"].to_pylist() == [0, 3]
    assert reader.table("eval_rollouts", [0]).num_rows > 0
    for attempt in (lambda: reader.table("rollouts", [9]), lambda: reader.report(9), lambda: reader.read_round(9)):
        with pytest.raises(RunFolderError, match="9"):
            attempt()
    with pytest.raises(RunFolderError, match="no evaluation after round 1"):
        reader.evaluation(1)
    with pytest.raises(InputError, match="choose one of problems"):
        reader.table("secrets")


def test_tables_of_a_new_run_are_empty_with_all_columns(fresh: RunWriter) -> None:
    reader = RunReader(fresh.path)
    for name in TABLES:
        if name == "events":
            continue
        assert reader.table(name).schema.equals(TABLE_SCHEMAS[name])
        assert reader.table(name).num_rows == reader.query(f"SELECT * FROM {name}").num_rows == 0
        assert reader.query(f"SELECT * FROM {name}").schema.names == reader.table(name).schema.names
    assert set(ROUND_TABLES) | set(EVALUATION_TABLES) < set(TABLES)


def test_a_query_reaches_nothing_but_the_run(recorded: Path, tmp_path: Path) -> None:
    reader = RunReader(recorded)
    outside = tmp_path / "outside.parquet"
    pq.write_table(pa.table({"a": [1]}), outside)
    parquet = recorded / "rounds" / "000001" / "tasks.parquet"
    for sql in (
        f"SELECT * FROM read_parquet('{outside}')",
        f"SELECT * FROM '{parquet}'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM secret_table",
        "SELECT getenv('HOME')",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'x.db'}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1; SELECT 2",
        "",
        "SELEC 1",
        "SELECT nothing FROM tasks",
    ):
        secret_table = pa.table({"a": [1]})
        assert secret_table.num_rows
        with pytest.raises(InputError):
            reader.query(sql)
    assert [path.name for path in tmp_path.iterdir()] == ["outside.parquet"]
    assert reader.query("SHOW TABLES").num_rows == len(TABLES)
    assert reader.query("DESCRIBE tasks").num_rows == len(SCHEMAS["tasks"].names)


@pytest.mark.parametrize("name", ["a [1] *?", "it's", 'say "x"', "ü"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    with RunWriter.create(tmp_path / name, CONFIG, ENVIRONMENT) as writer:
        write_round(writer, 1)
    assert RunReader(tmp_path / name).query("SELECT count(*) AS n FROM problems").to_pylist() == [{"n": 5}]


@pytest.mark.parametrize("damage", [b"", b"PAR1 no table PAR1"])
def test_a_damaged_table_is_named(fresh: RunWriter, damage: bytes) -> None:
    write_round(fresh, 1)
    path = fresh.path / "rounds" / "000001" / "rollouts.parquet"
    path.write_bytes(damage)
    reader = RunReader(fresh.path)
    for attempt in (
        lambda: reader.table("rollouts"),
        lambda: reader.read_round(1),
        lambda: reader.query("SELECT * FROM rollouts"),
    ):
        with pytest.raises(RunFolderError, match=r"rollouts\.parquet"):
            attempt()


def test_a_foreign_table_and_impossible_values_are_damage(fresh: RunWriter) -> None:
    write_round(fresh, 1)
    path = fresh.path / "rounds" / "000001" / "tasks.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(4, "kind", pa.array(["poem"] * table.num_rows)), path)
    reader = RunReader(fresh.path)
    with pytest.raises(RunFolderError, match="poem"):
        reader.read_round(1)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(RunFolderError, match="columns"):
        reader.table("tasks")
    report = fresh.path / "rounds" / "000001" / "report.json"
    report.write_text(json.dumps({"round": 1}))
    with pytest.raises(RunFolderError, match="lacks its field"):
        reader.report(1)


def test_images_are_served_from_the_image_folder_only(fresh: RunWriter) -> None:
    (fresh.path / "images" / "a.png").write_bytes(b"x")
    (fresh.path / "images" / "link.png").symlink_to("/etc/passwd")
    reader = RunReader(fresh.path)
    assert reader.image_path(ImageRef("0", "images/a.png")).read_bytes() == b"x"
    for path in ("/etc/passwd", "images/../run.json", "run.json", "images/link.png", "images/..", "images/b.png", ""):
        with pytest.raises(RunFolderError, match="no image"):
            reader.image_path(ImageRef("0", path))


# Status --------------------------------------------------------------------------------------------------------------


def test_status_follows_a_run(fresh: RunWriter) -> None:
    _, phases, _ = make_round(1)
    fresh.record_phase(1, 0, *phases[0])
    reader = RunReader(fresh.path)
    status = reader.status()
    assert (status.state, status.last_round) == ("running", 0)
    assert status.phase is not None
    assert status.phase.phase == "roll_out"
    assert status.writer is not None
    assert status.writer.pid > 0
    assert reader.phase(reader.phases()[0]) == phases[0][2]
    info = reader.phases()[0]
    write_round(fresh, 1)
    assert reader.phase(info) is None
    fresh.close("finished")
    status = reader.status()
    assert (status.state, status.last_round, status.phase, status.writer) == ("finished", 1, None, None)


def test_runs_are_listed_and_broken_ones_explained(recorded: Path, fresh: RunWriter, tmp_path: Path) -> None:
    write_round(fresh, 1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text('{"schema_version": 99}')
    (tmp_path / "link").symlink_to(recorded)
    found = {summary.name: summary for summary in list_runs(tmp_path)}
    assert list(found) == ["broken", "fresh"]
    assert found["broken"].state == "unreadable"
    assert "update" in found["broken"].problem
    assert (found["fresh"].state, found["fresh"].rounds) == ("running", 1)
    assert [summary.state for summary in list_runs(recorded.parent)] == ["finished"]
    with pytest.raises(RunFolderError, match="no folder"):
        list_runs(tmp_path / "nowhere")


# Reading while it is written -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_readers_see_whole_rounds_while_rounds_come_and_go(fresh: RunWriter) -> None:
    """A writer goes forth and back while readers look: every answer is a prefix of the run."""
    stop = threading.Event()
    problems: list[BaseException] = []
    looks: Counter[str] = Counter()

    def look(name: str, read: Callable[[RunReader], None]) -> None:
        try:
            while not stop.is_set():
                read(RunReader(fresh.path))
                looks[name] += 1
        except BaseException as error:
            problems.append(error)
            raise

    def by_sql(reader: RunReader) -> None:
        rows = reader.query("SELECT round, count(*) AS n FROM rollouts GROUP BY round ORDER BY round").to_pylist()
        assert [row["round"] for row in rows] == list(range(1, len(rows) + 1))
        for row in rows:
            assert row["n"] == sizes[row["round"]]

    def by_table(reader: RunReader) -> None:
        rounds = sorted(set(reader.table("tasks")["round"].to_pylist()))
        assert rounds == list(range(1, len(rounds) + 1))
        reports = [report.round for report in reader.reports()]
        assert all(b == a + 1 for a, b in pairwise(reports))
        for info in reader.phases():
            assert reader.phase(info) in (None, make_round(info.round)[1][info.index][2])
        assert reader.status().state == "running"

    sizes = {round: sum(len(group.rollouts) for _, group in groups_of(round)) for round in range(1, 6)}
    threads = [threading.Thread(target=look, args=(f.__name__, f)) for f in (by_sql, by_table)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        for round in range(fresh.last_round + 1, 4):
            write_round(fresh, round, journal=True)
        fresh.drop_rounds_after(1)
    while min(looks["by_sql"], looks["by_table"]) < 2 and not problems:
        write_round(fresh, fresh.last_round + 1)
        fresh.drop_rounds_after(fresh.last_round - 1)
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems


def test_the_environment_is_described_without_paths_or_names() -> None:
    found = describe_environment()
    text = json.dumps(found)
    assert found["packages"]["pyarrow"] == pa.__version__
    assert found["torch"]["threads"] >= 1
    assert found["memory_bytes"] > 0
    assert str(Path.home()) + "/" not in text
    assert str(Path(__file__).parents[1]) not in text
