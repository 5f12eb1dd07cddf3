"""Evaluations of other suites beside the run's own: written whole, read back, queried, shown, and kept apart."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spark_kernel.errors import InputError, PhaseError, RunFolderError
from spark_kernel.evaluate.frozen import frozen_candidates
from spark_kernel.runs.bundles import HELD_OUT, EvaluationRecords
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.schemas import EVALUATION_TABLES
from spark_kernel.runs.writer import RunWriter
from tests.helpers.documented import ask, queries
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, OTHER_SUITE, make_evaluation, write_round
from workbench.commands.look import show
from workbench.notebook.run_on_disk import RunOnDisk
from workbench.recorded import recorded_run
from workbench.reporting.report_page.tables import write_tables
from workbench.views import RunView
from workbench.views.comparison import run_result

NOT_OF_EVALUATIONS = ("sittings",)
"""Queries over events, which another writer adds to."""


def moved(records: EvaluationRecords, round: int, suite: str) -> EvaluationRecords:
    """The same evaluation as if it were of another suite and round."""
    exclusions = tuple(replace(item, round=round) for item in records.exclusions)
    return replace(records, round=round, suite=suite, exclusions=exclusions)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded run, with its evaluation after round 12 once more as that of a suite after rounds 0, 6 and 9."""
    run = tmp_path_factory.mktemp("suites") / "run"
    shutil.copytree(recorded_run(), run)
    with RunWriter.open(run) as writer:
        reader = RunReader(run)
        for round in (0, 6, 9):
            writer.write_evaluation(moved(reader.read_evaluation(12), round, OTHER_SUITE), reader.evaluation(12))
    return run


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[RunWriter]:
    with RunWriter.create(tmp_path / "fresh", CONFIG, ENVIRONMENT) as writer:
        yield writer


# Written and read -----------------------------------------------------------------------------------------------------


def test_an_evaluation_of_another_suite_comes_back_equal(fresh: RunWriter) -> None:
    records, summary = make_evaluation(0, OTHER_SUITE)
    own, own_summary = make_evaluation(0)
    fresh.write_evaluation(records, summary)
    fresh.write_evaluation(own, own_summary)
    reader = RunReader(fresh.path)
    assert reader.suites == [HELD_OUT, OTHER_SUITE]
    assert (reader.evaluations, reader.evaluated(OTHER_SUITE), fresh.evaluations(OTHER_SUITE)) == ([0], [0], [0])
    assert reader.read_evaluation(0, OTHER_SUITE) == records
    assert reader.evaluation(0, OTHER_SUITE) == summary
    assert reader.read_evaluation(0) == own
    assert reader.evaluation(0) == own_summary
    assert [e["suite"] for e in reader.events() if e["event"] == "evaluation"] == [OTHER_SUITE, HELD_OUT]
    with pytest.raises(RunFolderError, match=f"no evaluation of suite {OTHER_SUITE} after round 1"):
        reader.evaluation(1, OTHER_SUITE)
    with pytest.raises(PhaseError, match="Round 2 has not been run"):
        fresh.write_evaluation(moved(records, 2, OTHER_SUITE), summary)


def test_the_run_s_own_evaluations_lie_where_they_always_did(fresh: RunWriter) -> None:
    for suite in (HELD_OUT, OTHER_SUITE):
        fresh.write_evaluation(*make_evaluation(0, suite))
    files = sorted(
        path.relative_to(fresh.path).as_posix() for path in (fresh.path / "evaluations").rglob("report.json")
    )
    assert files == ["evaluations/000000/report.json", f"evaluations/{OTHER_SUITE}/000000/report.json"]
    stored = pq.read_schema(fresh.path / "evaluations" / OTHER_SUITE / "000000" / "rollouts.parquet")
    assert "suite" not in stored.names


@pytest.mark.parametrize("name", ["../up", "000001", "Big", "", "a" * 65, "a/b", ".hidden", "a.replaced", "é"])
def test_a_name_that_could_not_be_a_folder_is_refused(fresh: RunWriter, name: str) -> None:
    records, summary = make_evaluation(0)
    with pytest.raises(InputError, match="no name of a suite"):
        fresh.write_evaluation(replace(records, suite=name), summary)
    with pytest.raises(InputError, match="no name of a suite"):
        RunReader(fresh.path).evaluation(0, name)
    with pytest.raises(InputError, match="no name of a suite"):
        RunReader(fresh.path).table("eval_tasks", suite=name)
    assert list((fresh.path / "evaluations").iterdir()) == []


def test_a_link_is_no_suite(fresh: RunWriter, tmp_path: Path) -> None:
    fresh.write_evaluation(*make_evaluation(0, OTHER_SUITE))
    (fresh.path / "evaluations" / OTHER_SUITE).rename(tmp_path / "outside")
    (fresh.path / "evaluations" / OTHER_SUITE).symlink_to(tmp_path / "outside")
    assert RunReader(fresh.path).suites == []
    assert RunReader(fresh.path).table("eval_tasks").num_rows == 0


def test_a_kill_while_the_only_evaluation_of_a_suite_is_replaced_loses_none(fresh: RunWriter) -> None:
    records, summary = make_evaluation(0, OTHER_SUITE)
    fresh.write_evaluation(records, summary)
    fresh.close()
    place = fresh.path / "evaluations" / OTHER_SUITE / "000000"
    place.rename(place.with_name("000000.replaced"))
    RunWriter.open(fresh.path).close()
    assert RunReader(fresh.path).read_evaluation(0, OTHER_SUITE) == records


def test_going_back_takes_every_suite_along(fresh: RunWriter) -> None:
    for round in (1, 2):
        write_round(fresh, round)
        fresh.write_evaluation(*make_evaluation(round, OTHER_SUITE))
    folder = fresh.drop_rounds_after(1)
    assert folder is not None
    assert (folder / "evaluations" / OTHER_SUITE / "000002" / "report.json").is_file()
    assert RunReader(fresh.path).evaluated(OTHER_SUITE) == [1]


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """DuckDB adds up in whatever order its threads come."""
    return [{k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


# Tables and queries ---------------------------------------------------------------------------------------------------


def test_tables_of_evaluations_say_the_suite(run: Path) -> None:
    reader = RunReader(run)
    for name in (*EVALUATION_TABLES, "evaluations"):
        whole, own, other = (
            reader.table(name),
            reader.table(name, suite=HELD_OUT),
            reader.table(name, suite=OTHER_SUITE),
        )
        assert whole.num_rows == own.num_rows + other.num_rows
        assert set(own["suite"].to_pylist()) <= {HELD_OUT}
        assert set(other["suite"].to_pylist()) <= {OTHER_SUITE}
        assert reader.table(name, [6]).num_rows == sum(reader.table(name, [6], s).num_rows for s in reader.suites)
    assert set(reader.table("eval_tasks", [9])["suite"].to_pylist()) == {OTHER_SUITE}
    with pytest.raises(RunFolderError, match="no evaluation after round 9"):
        reader.table("eval_tasks", [9], HELD_OUT)
    with pytest.raises(InputError, match='"rollouts" knows no suites'):
        reader.table("rollouts", suite=HELD_OUT)


def test_sql_sees_the_suite(run: Path) -> None:
    reader = RunReader(run)
    counts = reader.query("SELECT suite, round, count(*) AS n FROM eval_rollouts GROUP BY ALL ORDER BY ALL").to_pylist()
    assert counts == [
        {"suite": suite, "round": round, "n": reader.table("eval_rollouts", [round], suite).num_rows}
        for suite in reader.suites
        for round in reader.evaluated(suite)
    ]
    assert reader.query(f"SELECT * FROM eval_rollouts WHERE suite = '{OTHER_SUITE}'").equals(
        reader.table("eval_rollouts", suite=OTHER_SUITE)
    )
    by_suite = {(row["suite"], row["round"], row["part"]): row["accuracy"] for row in ask(reader, "suites")}
    assert by_suite[OTHER_SUITE, 6, "solve"] == by_suite[HELD_OUT, 12, "solve"]
    assert {suite for suite, _, _ in by_suite} == {HELD_OUT, OTHER_SUITE}


@pytest.mark.parametrize("name", sorted(set(queries()) - {"suites", *NOT_OF_EVALUATIONS}))
def test_the_documented_figures_are_those_of_the_run_s_own_evaluations(run: Path, name: str) -> None:
    before = rounded(ask(RunReader(recorded_run()), name))
    assert before
    assert rounded(ask(RunReader(run), name)) == before


def test_exported_tables_hold_every_suite(run: Path, tmp_path: Path) -> None:
    write_tables(RunReader(run), tmp_path / "tables", "parquet")
    for name in EVALUATION_TABLES:
        assert pq.read_table(tmp_path / "tables" / f"{name}.parquet").equals(RunReader(run).table(name))


# What is made of evaluations ------------------------------------------------------------------------------------------


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


@pytest.mark.slow
def test_views_show_another_suite_and_leave_the_run_s_own_as_it_was(run: Path) -> None:
    before, view = RunView(recorded_run()), RunView(run)
    assert view.suites() == (HELD_OUT, OTHER_SUITE)
    assert view.evaluations() == before.evaluations()
    assert view.evaluations(OTHER_SUITE) == (0, 6, 9)
    for round in before.evaluations():
        assert view.evaluation_rollouts(round).table.equals(before.evaluation_rollouts(round).table)
        assert view.judge(round, held_out=True) == before.judge(round, held_out=True)
        assert view.self_correction(round) == before.self_correction(round)
    assert view.series() == replace(before.series(), run=view.reader.info.name)
    assert view.snapshot().evaluations == before.snapshot().evaluations
    assert run_result(view.reader, "x") == run_result(before.reader, "x")
    shown, original = view.evaluation_rollouts(9, OTHER_SUITE), before.evaluation_rollouts(12)
    assert without(shown.rows(), "round", "before") == without(original.rows(), "round", "before")
    met = [row for row in shown.rows() if row["period"] == "solve" and row["correct"] is not None]
    assert all(row["before"] == ("right" if row["correct"] else "wrong") for row in met)
    chosen = met[0]["id"]
    detail = view.evaluation_rollout(9, chosen, suite=OTHER_SUITE)
    assert detail.messages == before.evaluation_rollout(12, chosen).messages
    assert view.judge(9, held_out=True, suite=OTHER_SUITE).lines == before.judge(12, held_out=True).lines
    loop = before.self_correction(12)
    assert loop is not None
    assert view.self_correction(9, OTHER_SUITE) == replace(loop, round=9)
    assert [point.round for point in run_result(view.reader, "x", OTHER_SUITE).checkpoints] == [0, 6, 9]


def test_the_frozen_pool_is_of_the_run_s_own_first_evaluation(run: Path) -> None:
    assert frozen_candidates((run,), 6) == frozen_candidates((recorded_run(),), 6) != ()
    assert frozen_candidates((run,), 0) == ()


def test_show_names_other_suites_and_shows_one(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    def said(*arguments: str) -> str:
        assert show([str(run), *arguments]) == 0
        return capsys.readouterr().out

    assert f"Also evaluated: {OTHER_SUITE}, after round 0, 6, 9" in said()
    both = said("--suite", OTHER_SUITE)
    assert f"Suite {OTHER_SUITE}" in both
    assert "before training" in both
    assert "after round 9" in both
    assert "after round 6" not in both
    assert "after round 6" in said("--suite", OTHER_SUITE, "--round", "6")
    with pytest.raises(InputError, match=f"no evaluation of suite nothing; suites there: {HELD_OUT}, {OTHER_SUITE}"):
        show([str(run), "--suite", "nothing"])


def test_a_new_evaluation_of_any_suite_is_news_to_whoever_watches(fresh: RunWriter) -> None:
    watched, stamps = RunOnDisk(), []
    for round, suite in ((0, OTHER_SUITE), (0, HELD_OUT), (1, OTHER_SUITE)):
        fresh.write_evaluation(*make_evaluation(round, suite))
        stamps.append(watched.look(fresh.path).stamp)
    assert len(set(stamps)) == 3
