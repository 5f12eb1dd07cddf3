"""Snapshots of a run and its curves say what the documented queries say, while the run is written too."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config import load_config
from spark_kernel.errors import RunFolderError
from spark_kernel.records import Period
from spark_kernel.runs.bundles import ParentRun
from spark_kernel.runs.checkpoints import checkpoint_name
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from tests.helpers.documented import ask
from tests.helpers.recorded_runs import ENVIRONMENT, fill_checkpoint, make_round, write_round
from workbench.recorded import recorded_run
from workbench.views import RunView
from workbench.views.lines import Line, make_lines, thin
from workbench.views.snapshot import environment_rows

CONFIG = load_config("quickstart", rounds=3).to_yaml()


@pytest.fixture(scope="module")
def view() -> RunView:
    return RunView(recorded_run())


def cell(line: Line, round: int, figure: str) -> float | None:
    return line.get(figure)[line.rounds.index(round)]


def near(value: float | None) -> object:
    return value if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)


# Curves ---------------------------------------------------------------------------------------------------------------


def test_on_policy_figures_follow_from_the_rows(view: RunView) -> None:
    series = view.series()
    seen = 0
    for name, columns in (
        ("accuracy", ("n", "groups", "missing", "reward_mean", "accuracy", "unparseable")),
        ("groups", ("all_correct", "mixed", "all_wrong", "zero_variance")),
        ("judge", ("balanced_accuracy", "accuracy_parsed", "coverage", "base_rate", "chance", "yes_rate", "f1")),
        ("a_rate", ("a_rate",)),
    ):
        for row in ask(view.reader, name):
            line = series.kind_line(row["kind"], row["origin"])
            assert line is not None
            assert line.name == (row["period"], row["kind"], row["origin"])
            for column in columns:
                assert cell(line, row["round"], column) == near(row[column]), (name, row)
                seen += 1
    assert seen > 500
    assert sum(len(line.rounds) for line in series.on_policy) == len(ask(view.reader, "accuracy"))


def test_intervals_and_lengths_are_those_of_the_reports(view: RunView) -> None:
    series = view.series()
    for row in ask(view.reader, "report_lines"):
        line = series.kind_line(row["kind"], row["origin"])
        assert line is not None
        assert (cell(line, row["round"], "accuracy_low"), cell(line, row["round"], "accuracy_high")) == (
            row["reward_low"],
            row["reward_high"],
        )
    for row in ask(view.reader, "lengths"):
        line = series.kind_line(row["kind"], row["origin"])
        assert line is not None
        assert cell(line, row["round"], "length_mean") == near(row["mean"])


def test_an_interval_of_graded_rewards_is_not_shown_as_one_of_accuracy(tmp_path: Path) -> None:
    records, _, report = make_round(1)
    from spark_kernel.evaluate.kind_stats import kind_stats

    lines = tuple(s for period, groups in records.groups.items() for s in kind_stats(groups, period))
    graded = dataclasses.replace(lines[0], reward_mean=0.31)
    with RunWriter.create(tmp_path / "run", CONFIG, ENVIRONMENT) as writer:
        writer.finish_round(records, dataclasses.replace(report, kinds=(graded, *lines[1:])))
    series = RunView(tmp_path / "run").series()
    first, second = series.on_policy[:2]
    assert not first.has("accuracy_low")
    assert first.last("accuracy") == lines[0].accuracy
    assert second.last("accuracy_low") == lines[1].reward_low


def test_update_figures_follow_from_the_rows(view: RunView) -> None:
    series = view.series()
    for row in ask(view.reader, "updates"):
        line = series.update_line(row["period"])
        assert line is not None
        for column in ("loss", "kl", "entropy", "clip_share", "grad_norm", "learning_rate", "loss_tokens"):
            assert cell(line, row["round"], column) == near(row[column])
    rows = ask(view.reader, "loss_by_kind")
    for row in rows:
        line = next(line for line in series.updates_by_kind if line.name == (row["period"], row["kind"]))
        assert cell(line, row["round"], "loss") == near(row["loss"])
    assert sum(len(line.rounds) for line in series.updates_by_kind) == len(rows)
    for row in ask(view.reader, "seconds"):
        line = next(line for line in series.seconds if line.name == (row["phase"],))
        assert cell(line, row["round"], "seconds") == row["seconds"]
    peaks = ask(view.reader, "memory")
    for row in peaks:
        if row["round"] in series.memory.rounds:  # an evaluation's phases have no round of their own
            recorded = view.reader.round_meta(row["round"])["peak_memory"]["process"]
            assert cell(series.memory, row["round"], "process") == recorded
            assert 0.9 < recorded / 2**30 / row["process"] <= 1.1
    assert series.memory.rounds == series.rounds
    for row in ask(view.reader, "queue"):
        assert cell(series.whole, row["round"], "queue_length") == row["queue_length"]
        assert cell(series.whole, row["round"], "seconds") == near(row["seconds"])


def test_held_out_figures_are_apart_and_follow_from_the_rows(view: RunView) -> None:
    series = view.series()
    from_rows = {(row["round"], row["part"]): row for row in ask(view.reader, "held_out")}
    checked = set()
    for row in ask(view.reader, "held_out_lines"):
        line = series.held_out_line(row["line"])
        assert line is not None
        for column in ("n", "balanced_accuracy", "chance", "base_rate", "yes_rate", "a_rate"):
            assert cell(line, row["round"], column) == near(row[column])
        if row["accuracy"] is None:
            continue
        assert cell(line, row["round"], "accuracy") == near(row["accuracy"])
        assert cell(line, row["round"], "accuracy_low") == near(row["low"])
        part = {"greedy": "loop/solve"}.get(row["line"], row["line"])
        if (row["round"], part) in from_rows:  # votes are made of rows, and have none of their own
            assert cell(line, row["round"], "accuracy") == near(from_rows[row["round"], part]["accuracy"])
            checked.add(part)
    assert {"solve", "loop/solve", "own/pointwise/answer", "own/pairwise/full", "frozen/pointwise/full"} <= checked
    assert {line.rounds[0] for line in series.held_out if line.name[0].startswith("own/")} == {0}


def test_a_judge_with_one_verdict_is_named() -> None:
    figures = {"one_sided": (0.0, 1.0), "yes_rate": (0.5, 1.0), "base_rate": (0.5, 0.4), "parsed": (20.0, 30.0)}
    line = Line(("reward", "pointwise", "solve"), (1, 2), figures)
    from workbench.views.series import _flags

    assert _flags([line], "on-policy") == [
        "One-sided judge, pointwise/solve, on-policy, round 2: "
        'It says "Yes" in 100% of 30 readable verdicts, where "Yes" is right in 40%.'
    ]
    assert _flags([Line(line.name, (1, 2), {"one_sided": (1.0, 0.0)})], "on-policy") == []


@given(
    st.sets(st.integers(1, 3000), min_size=1).map(sorted),
    st.integers(4, 200),
    st.sets(st.integers(0, 3000), max_size=400),
)
def test_thinning_keeps_ends_and_is_bounded(rounds: list[int], most: int, keep: set[int]) -> None:
    chosen = thin(rounds, most, keep)
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(rounds)
    assert {rounds[0], rounds[-1]} <= set(chosen)
    if len(rounds) <= most:
        assert list(chosen) == rounds
    dense = list(range(1, len(rounds) + 1))
    assert len(thin(dense, most, keep)) <= most + 1
    wanted = keep & set(dense)
    if len(wanted) <= most // 2:
        assert wanted <= set(thin(dense, most, keep))


def test_a_growing_run_goes_on_with_the_rounds_it_has_shown() -> None:
    before, after = set(thin(range(1, 1001), 100)), set(thin(range(1, 1011), 100))
    assert len(before - after) <= 1  # the last round of before


def test_thinned_curves_say_so(view: RunView) -> None:
    series = view.series(most=6)
    assert series.total_rounds == 12
    assert series.rounds[0] == 1
    assert series.rounds[-1] == 12
    assert 6 in series.rounds  # there is an evaluation after it
    assert series.thinned == f"{len(series.rounds)} of 12 rounds are shown."
    assert view.series().thinned == ""


def test_lines_fill_what_a_round_lacks() -> None:
    (line,) = make_lines([(("a",), 1, {"x": 1.0}), (("a",), 3, {"y": 2.0})])
    assert (line.rounds, line.get("x"), line.get("y"), line.get("z")) == (
        (1, 3),
        (1.0, None),
        (None, 2.0),
        (None, None),
    )
    assert not line.has("z")
    assert line.last("x") is None


# Snapshots ------------------------------------------------------------------------------------------------------------


def test_the_shipped_run_opens_with_everything_a_panel_shows(view: RunView) -> None:
    snapshot = view.snapshot()
    assert (snapshot.name, snapshot.state, snapshot.rounds_done, snapshot.rounds_configured) == (
        "quickstart",
        "finished",
        12,
        12,
    )
    assert (snapshot.newest_round, snapshot.evaluations, snapshot.due, snapshot.due_round) == (12, (0, 6, 12), "", None)
    assert snapshot.preset == "quickstart"
    assert ("rounds", "20", "12") in {(d.setting, d.preset, d.run) for d in snapshot.differences}
    assert all(load_config("quickstart").rounds != 12 or d.setting != "rounds" for d in snapshot.differences)
    assert {"python", "torch", "devices"} <= {name for name, _ in snapshot.environment}
    assert not snapshot.problem


def test_state_follows_the_writer(tmp_path: Path) -> None:
    run = tmp_path / "run"
    writer = RunWriter.create(run, CONFIG, ENVIRONMENT)
    view = RunView(run)
    first = view.snapshot()
    assert (first.state, first.newest_round, first.due, first.due_round) == (
        "running",
        None,
        "roll_out (policy period)",
        1,
    )
    assert first.state_line.startswith("running: written by process ")
    _, phases, _ = make_round(1)
    for index, (period, phase, made) in enumerate(phases[:1]):
        writer.record_phase(1, index, period, phase, made)
    second = view.snapshot()
    assert (second.phases, second.due) == ((("policy", "roll_out"),), "verify (policy period)")
    assert view.rounds() == (1,)
    write_round(writer, 1)
    writer.write_checkpoint(checkpoint_name(1), fill_checkpoint)
    writer.close("failed", "no space left")
    third = view.snapshot()
    assert (third.state, third.rounds_done, third.due_round) == ("failed", 1, 2)
    assert third.state_line.startswith("failed: no space left")
    assert [(c.name, c.round, c.in_progress) for c in third.checkpoints] == [("000001", 1, False)]
    assert first.rounds_done == 0  # a snapshot does not change


@pytest.mark.slow
def test_a_killed_writer_is_called_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    target = "import sys; from tests.helpers.recorded_runs import run_and_write_forever as f; f(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", target, str(run), str(tmp_path / "ready")])
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    view = RunView(run)
    seen = set()
    while len(seen) < 3:  # read while it is written, discarded rounds included
        assert time.monotonic() < deadline
        snapshot, series = view.snapshot(), view.series()
        assert snapshot.state == "running"
        assert list(series.rounds) == sorted(series.rounds)
        if series.rounds:
            seen.add(series.rounds[-1])
            rows = view.rollouts([view.rounds()[0]])
            assert rows.count > 0
    process.kill()
    process.wait()
    assert view.snapshot().state == "killed"
    assert "without closing" in view.snapshot().state_line


def test_a_fork_names_its_parent_and_bad_settings_are_a_sentence(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "fork", "seed: 0\nround: 3\n", ENVIRONMENT, parent=ParentRun("old", 4)) as writer:
        writer.close("stopped")
    snapshot = RunView(tmp_path / "fork").snapshot()
    assert (snapshot.parent, snapshot.state, snapshot.rounds_done) == ("old after round 4", "stopped", 4)
    assert "round" in snapshot.problem
    assert (snapshot.rounds_configured, snapshot.due, snapshot.differences) == (None, "", ())


def test_missing_and_damaged_runs_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="There is no run"):
        RunView(tmp_path / "nowhere")
    view = RunView(recorded_run())
    with pytest.raises(RunFolderError, match="has no round 99"):
        view.rollouts([99])
    with pytest.raises(RunFolderError, match="no evaluation after round 3"):
        view.judge(3, held_out=True)


def test_environment_of_a_gpu_machine_names_it() -> None:
    rows = dict(environment_rows({"torch": {"threads": 4, "devices": [{"name": "H100"}]}, "memory_bytes": 2**31}))
    assert rows == {"devices": "H100", "torch threads": "4", "memory": "2.0 GiB"}


def test_a_round_made_anew_is_read_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as writer:
        for round in (1, 2):
            write_round(writer, round)
        view = RunView(run)
        before = view.rollouts([2]).rows()
        assert before
        assert view.series().rounds == (1, 2)
        writer.drop_rounds_after(1)
        with pytest.raises(RunFolderError, match="no round 2"):
            view.rollouts([2])
        records, _, report = make_round(2)
        fewer = {Period.POLICY: records.groups[Period.POLICY][:1]}
        writer.finish_round(dataclasses.replace(records, groups=fewer), report)
        assert 0 < view.rollouts([2]).count < len(before)


def test_reading_leaves_no_file_open(view: RunView) -> None:
    def opened() -> set[str]:
        found = defaultdict(int)
        for link in Path("/proc/self/fd").iterdir():
            try:
                found[str(link.readlink())] += 1
            except OSError:
                continue
        return {name for name in found if str(recorded_run()) in name}

    fresh = RunView(RunReader(recorded_run()))
    fresh.snapshot(), fresh.series(), fresh.rollouts([3]), fresh.judge(6, held_out=True), fresh.funnel([2])
    end = time.monotonic() + 10.0
    while opened() and time.monotonic() < end:  # Arrow's own threads let go a moment later
        time.sleep(0.05)
    assert opened() == set()
