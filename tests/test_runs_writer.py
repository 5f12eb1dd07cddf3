"""The run folder keeps every promise: what was recorded comes back, whole or absent; one writer; events; its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from spark_kernel.errors import InputError, NonFiniteError, PhaseError, RunFolderError, RunLockedError
from spark_kernel.records import Parse, Period, Score
from spark_kernel.runs.bundles import ParentRun, PhaseRecords
from spark_kernel.runs.checkpoints import checkpoint_name
from spark_kernel.runs.new_folder import check_new_folder
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, fill_checkpoint, make_evaluation, make_round, write_round
from tests.helpers.run_folders import event_names, listing


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def writer(run: Path) -> Iterator[RunWriter]:
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as opened:
        yield opened


# What was recorded comes back ----------------------------------------------------------------------------------------


def test_rounds_phases_and_evaluations_come_back_equal(writer: RunWriter, run: Path) -> None:
    records, phases, report = make_round(1)
    for index, (period, phase, made) in enumerate(phases):
        writer.record_phase(1, index, period, phase, made)
    assert [writer.recall_phase(1, i, period, phase) for i, (period, phase, _) in enumerate(phases)] == [
        made for _, _, made in phases
    ]
    assert writer.recall_phase(1, 7, Period.POLICY, "verify") is None
    writer.finish_round(records, report)
    write_round(writer, 2)
    evaluation, summary = make_evaluation(2)
    writer.write_evaluation(evaluation, summary)
    reader = RunReader(run)
    assert reader.rounds == writer.rounds() == [1, 2]
    assert reader.read_round(1) == writer.read_round(1) == records
    assert reader.report(1) == report
    assert reader.reports() == [report, make_round(2)[2]]
    assert reader.read_evaluation(2) == evaluation
    assert reader.evaluation(2) == summary
    assert reader.phases() == []
    assert reader.config_yaml == CONFIG
    assert reader.environment == ENVIRONMENT


def test_an_evaluation_gives_way_to_a_new_one_of_the_same_round(writer: RunWriter, run: Path) -> None:
    records, _ = make_evaluation(0)
    writer.write_evaluation(records, {"accuracy": 0.25})
    writer.write_evaluation(records, {"accuracy": 0.5})
    assert RunReader(run).evaluation(0) == {"accuracy": 0.5}
    assert writer.evaluations() == [0]


def test_what_is_not_due_is_refused(writer: RunWriter, run: Path) -> None:
    records, phases, report = make_round(1)
    second, _, second_report = make_round(2)
    period, phase, made = phases[0]
    with pytest.raises(PhaseError, match="Round 1 is due"):
        writer.finish_round(second, second_report)
    with pytest.raises(PhaseError, match="Round 1 is in flight"):
        writer.record_phase(2, 0, period, phase, made)
    with pytest.raises(InputError, match="phase name"):
        writer.record_phase(1, 0, period, "../up", made)
    writer.record_phase(1, 1, period, phase, made)
    with pytest.raises(PhaseError, match="recorded already"):
        writer.record_phase(1, 1, period, phase, made)
    with pytest.raises(PhaseError, match="Phase 0"):
        writer.record_phase(1, 0, period, phase, made)
    with pytest.raises(RunFolderError, match="policy/roll_out at place 1, where reward/verify is due"):
        writer.recall_phase(1, 1, Period.REWARD, "verify")
    with pytest.raises(PhaseError):
        writer.write_evaluation(*make_evaluation(2))
    with pytest.raises(PhaseError):
        writer.write_checkpoint(checkpoint_name(1), fill_checkpoint)
    writer.finish_round(records, report)
    with pytest.raises(PhaseError, match="Round 2 is due"):
        writer.finish_round(records, report)
    assert RunReader(run).rounds == [1]


def test_a_reward_that_is_no_number_is_refused_and_nothing_is_written(writer: RunWriter, run: Path) -> None:
    records, _, report = make_round(1)
    group = records.groups[Period.POLICY][0]
    bad = replace(group.rollouts[0], score=Score(float("nan"), True, Parse.OK))
    groups = {Period.POLICY: (group.with_rollouts((bad,)),)}
    before = listing(run)
    with pytest.raises(NonFiniteError, match=bad.id):
        writer.finish_round(replace(records, groups=groups), report)
    assert listing(run) == before


def test_a_fork_is_numbered_on_from_its_parent(run: Path) -> None:
    with RunWriter.create(run, CONFIG, ENVIRONMENT, parent=ParentRun("first", 4)) as writer:
        assert writer.last_round == 4
        writer.write_checkpoint(checkpoint_name(4), fill_checkpoint)
        write_round(writer, 5)
        with pytest.raises(InputError, match="rounds 4 to 5"):
            writer.drop_rounds_after(3)
    reader = RunReader(run)
    assert reader.rounds == [5]
    assert reader.info.parent == ParentRun("first", 4)


# Opening and locking -------------------------------------------------------------------------------------------------


def test_a_used_folder_is_no_place_for_a_new_run(writer: RunWriter, run: Path, tmp_path: Path) -> None:
    writer.close()
    with pytest.raises(RunFolderError, match="holds a run already"):
        RunWriter.create(run, CONFIG, ENVIRONMENT)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"thesis\.tex"):
        RunWriter.create(other, CONFIG, ENVIRONMENT)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_place_is_checked_without_writing_anything(writer: RunWriter, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    check_new_folder(tmp_path / "new" / "er")
    for place, said in (
        (run, "holds a run already"),
        (tmp_path, "is not empty"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "inside", "is a file"),
    ):
        with pytest.raises(RunFolderError, match=said):
            check_new_folder(place)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_creation_is_no_run_and_can_be_repeated(writer: RunWriter, run: Path) -> None:
    writer.close()
    (run / "run.json").unlink()
    for open_it in (RunWriter.open, RunReader):
        with pytest.raises(RunFolderError, match="create it again"):
            open_it(run)
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as again:
        write_round(again, 1)
    assert RunReader(run).rounds == [1]


def test_missing_foreign_and_newer_folders_are_told_apart(writer: RunWriter, run: Path, tmp_path: Path) -> None:
    writer.close()
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    value = json.loads((run / "run.json").read_text())
    for open_it in (RunWriter.open, RunReader):
        with pytest.raises(RunFolderError, match="no run at"):
            open_it(tmp_path / "nothing")
        with pytest.raises(RunFolderError, match="not a folder"):
            open_it(tmp_path / "file")
        with pytest.raises(RunFolderError, match="not a run folder"):
            open_it(tmp_path / "folder")
        (run / "run.json").write_text(json.dumps(value | {"schema_version": 2, "unheard_of": True}))
        with pytest.raises(RunFolderError, match="update spark-workbench"):
            open_it(run)
        (run / "run.json").write_text("{")
        with pytest.raises(RunFolderError, match="damaged"):
            open_it(run)
    with pytest.raises(RunFolderError, match="file"):
        RunWriter.create(tmp_path / "file" / "run", CONFIG, ENVIRONMENT)


@pytest.mark.slow
def test_a_second_writer_learns_who_the_first_is(writer: RunWriter, run: Path) -> None:
    code = f"from spark_kernel.runs.writer import RunWriter; RunWriter.open({str(run)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RunLockedError" in done.stderr
    assert f"process {os.getpid()} on host {os.uname().nodename}" in done.stderr
    with pytest.raises(RunLockedError):
        RunWriter.open(run)
    writer.close()
    RunWriter.open(run).close()


@pytest.mark.slow
def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(run: Path) -> None:
    code = f"""
import os, signal, sys, time
from spark_kernel.runs.writer import RunWriter
writer = RunWriter.create({str(run)!r}, "", {{}})
child = os.fork()
if child == 0:
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        with pytest.raises(RunLockedError):
            RunWriter.open(run)
        process.kill()
        process.wait()
        try:
            os.kill(child, 0)
            RunWriter.open(run).close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_closed_writer_writes_nothing(writer: RunWriter, run: Path) -> None:
    writer.close()
    writer.close()
    before = listing(run)
    records, phases, report = make_round(1)
    period, phase, made = phases[0]
    for attempt in (
        lambda: writer.finish_round(records, report),
        lambda: writer.record_phase(1, 0, period, phase, made),
        lambda: writer.write_evaluation(*make_evaluation(0)),
        lambda: writer.write_checkpoint(checkpoint_name(0), fill_checkpoint),
        lambda: writer.append_event({"event": "x"}),
        lambda: writer.drop_rounds_after(0),
        lambda: writer.prune_checkpoints(1),
    ):
        with pytest.raises(RunFolderError, match="closed"):
            attempt()
    assert listing(run) == before


def test_a_hole_in_the_rounds_is_damage(writer: RunWriter, run: Path) -> None:
    for round in (1, 2, 3):
        write_round(writer, round)
    writer.close()
    shutil.rmtree(run / "rounds" / "000002")
    with pytest.raises(RunFolderError, match="round 2 is missing"):
        RunWriter.open(run)
    shutil.rmtree(run / "rounds" / "000001")
    shutil.rmtree(run / "rounds" / "000003")
    RunWriter.open(run).close()


# Events --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"number": 4, "ti', b"\x00" * 300 + b"\n", b"{}\n{\n", b"x" * 200_000])
def test_a_torn_last_event_is_mended_and_told(writer: RunWriter, run: Path, torn: bytes) -> None:
    for index in range(3):
        writer.append_event({"event": "note", "index": index, "text": "ü\n"})
    writer.close()
    before = list(RunReader(run).events())
    with (run / "events.jsonl").open("ab") as file:
        file.write(torn)
    assert RunReader(run).status().last_event == before[-1]
    with RunWriter.open(run) as again:
        again.append_event({"event": "note"})
    events = list(RunReader(run).events())
    assert events[: len(before)] == before
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert [event["event"] for event in events[len(before) :]] == ["repaired", "opened", "note", "closed"]
    assert events[len(before)]["dropped_bytes"] == len(torn)
    assert list(RunReader(run).events(after=len(events) - 1)) == events[-1:]


def test_a_damaged_line_in_the_middle_is_named(writer: RunWriter, run: Path) -> None:
    writer.close()
    path = run / "events.jsonl"
    path.write_bytes(b"oops\n" + path.read_bytes())
    with pytest.raises(RunFolderError, match="line 1"):
        list(RunReader(run).events())


@pytest.mark.parametrize("event", [{}, {"event": 3}, {"event": "x", "number": 1}, {"event": "x", "time": "now"}])
def test_an_event_that_is_none_is_refused(writer: RunWriter, event: dict[str, object]) -> None:
    with pytest.raises(InputError):
        writer.append_event(event)


def test_a_writer_leaves_how_it_ended(run: Path) -> None:
    RunWriter.create(run, CONFIG, ENVIRONMENT).close("finished")
    assert RunReader(run).status().state == "finished"
    with pytest.raises(ZeroDivisionError), RunWriter.open(run):
        _ = 1 / 0
    status = RunReader(run).status()
    assert status.state == "failed"
    assert status.last_event is not None
    assert "ZeroDivisionError" in status.last_event["detail"]
    assert event_names(run) == ["created", "closed", "opened", "closed"]


def test_empty_phases_are_recorded(writer: RunWriter) -> None:
    writer.record_phase(1, 0, Period.POLICY, "update", PhaseRecords())
    assert writer.recall_phase(1, 0, Period.POLICY, "update") == PhaseRecords()
