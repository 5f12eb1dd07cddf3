"""Readers see whole rounds only, while they are written too; what is damaged is named, and nothing else is reached."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.records import ImageRef
from spark_kernel.runs.bundles import HELD_OUT
from spark_kernel.runs.environment import describe_environment
from spark_kernel.runs.reader import TABLES, RunReader
from spark_kernel.runs.schemas import EVALUATION_TABLES, ROUND_TABLES, SCHEMAS, TABLE_SCHEMAS
from spark_kernel.runs.status import list_runs
from spark_kernel.runs.writer import RunWriter
from tests.helpers.finished_run import ROUNDS, groups_of, record_run
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, make_round, write_round


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("runs") / "recorded")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[RunWriter]:
    with RunWriter.create(tmp_path / "fresh", CONFIG, ENVIRONMENT) as writer:
        yield writer


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
