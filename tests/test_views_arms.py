"""Seeds of an arm together, and two runs problem by problem, over copies of the recorded run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from spark_kernel.errors import InputError
from spark_kernel.runs.reader import RunReader
from workbench.figures import arms_figure
from workbench.recorded import recorded_run
from workbench.reporting.problem_pairs_html import answers, problem_pairs_html
from workbench.reporting.seed_rows import ARM_HEADERS, arm_cells
from workbench.views import Outcome, RunsComparison, compare, problem_pairs, self_correction


def copy(target: Path, **settings: str) -> RunReader:
    """A copy of the recorded run with other values of top-level settings, or without its evaluations."""
    shutil.copytree(recorded_run(), target)
    config = target / "config.yaml"
    text = config.read_text(encoding="utf-8")
    for name, value in settings.items():
        text, count = re.subn(rf"(?m)^(\s*){name}: .*$", rf"\g<1>{name}: {value}", text, count=1)
        assert count == 1, name
    config.write_text(text, encoding="utf-8")
    info = json.loads((target / "run.json").read_text(encoding="utf-8"))
    (target / "run.json").write_text(json.dumps(info | {"name": target.name}), encoding="utf-8")
    return RunReader(target)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> RunsComparison:
    """Two arms of two seeds; the second arm has another learning rate and the same outputs."""
    folder = tmp_path_factory.mktemp("arms")
    runs = [copy(folder / "a1", seed="1"), copy(folder / "a2", seed="2")]
    runs += [copy(folder / f"b{n}", seed=str(n), learning_rate="1.0e-05") for n in (1, 2)]
    return compare(runs)


def test_runs_that_differ_by_their_seed_alone_are_one_arm(compared: RunsComparison) -> None:
    assert [(arm.name, arm.runs, arm.seeds) for arm in compared.arms] == [
        ("a1", ("a1", "a2"), (1, 2)),
        ("b1", ("b1", "b2"), (1, 2)),
    ]
    assert {row.label for row in compared.arm_rows} >= {"accuracy, greedy", "judges its own answers, balanced accuracy"}
    for row in compared.arm_rows:  # the same outputs: no difference, whatever the seeds
        assert row.result.difference == pytest.approx(0.0)
        assert row.result.seeds == (1, 2)
        assert not row.result.is_evidence
    assert all(len(cells) == len(ARM_HEADERS) for cells in arm_cells(compared))
    assert {cells[-1] for cells in arm_cells(compared)} == {"not enough evidence"}


def test_a_curve_is_the_mean_over_seeds_of_what_the_evaluations_say(compared: RunsComparison) -> None:
    reader = RunReader(recorded_run())
    rounds = [p.round for p in compared.curves if p.arm == "a1" and p.measure == "solved, greedy"]
    assert rounds == reader.evaluations
    for point in compared.curves:
        if point.measure == "solved, greedy":
            value = reader.evaluation(point.round)["lines"]["greedy"]["accuracy"]["value"]
            assert (point.mean, point.low, point.high) == (pytest.approx(fmean([value, value])), value, value)
            assert point.seeds == 2
    figure = arms_figure(compared)
    entries = [trace.name for trace in figure.data if trace.showlegend]
    assert entries == ["a1 (2 seeds)", "b1 (2 seeds)"]
    again = arms_figure(compared, "dark", figure=figure)
    assert len(again.data) == len(figure.data)


def test_two_runs_problem_by_problem_agree_with_their_loops(tmp_path: Path) -> None:
    reader = RunReader(recorded_run())
    first, last = reader.evaluations[0], reader.evaluations[-1]
    early = copy(tmp_path / "early")
    for number in early.evaluations[1:]:
        shutil.rmtree(early.path / "evaluations" / f"{number:06d}")
    found = problem_pairs(RunReader(early.path), reader)
    assert found is not None
    assert found.rounds == (first, last)
    loops = [self_correction(reader, number) for number in found.rounds]
    assert loops[0] is not None
    assert loops[1] is not None
    ends = [{c.problem_id: bool(c.final_step.correct) for c in loop.chains} for loop in loops]
    expected = {
        Outcome.FIRST: sum(ends[0][p] and not ends[1][p] for p in ends[0]),
        Outcome.SECOND: sum(ends[1][p] and not ends[0][p] for p in ends[0]),
    }
    assert {outcome: found.counts[outcome] for outcome in expected} == expected
    assert sum(expected.values()) > 0
    assert found.counts[Outcome.ALL] == len(ends[0]) == sum(found.counts.values()) - found.counts[Outcome.ALL]
    assert all(not pair.first[3] and pair.second[3] for pair in found.with_outcome("only the second is right"))
    with pytest.raises(InputError, match="choose one of"):
        found.with_outcome("A wins")
    html = problem_pairs_html(found, "<early>", "late", lambda head, rows: f"[{len(rows)} rows of {len(head)}]")
    assert f"only &lt;early&gt; is right: {expected[Outcome.FIRST]}" in html
    assert f"[{expected[Outcome.SECOND]} rows of 4]" in html


def test_an_answer_that_the_loop_changes_is_shown_with_both() -> None:
    assert answers("31", True, "31", True) == "✓ 31"
    assert answers("32", False, "31", True) == "✗ 32 → ✓ 31"
    assert answers(None, None, None, None) == "– (no answer)"


def test_training_figures_stand_where_there_is_no_evaluation(tmp_path: Path) -> None:
    bare = copy(tmp_path / "bare")
    shutil.rmtree(bare.path / "evaluations")
    (bare.path / "evaluations").mkdir()
    found = compare([RunReader(bare.path), RunReader(recorded_run())])
    assert any("No held-out evaluation: bare" in note for note in found.notes)
    own = [point for point in found.points if point.run == "bare"]
    assert {point.measure for point in own} >= {"solved (in training)", "judges answers (in training)"}
    last = bare.rounds[-1]
    solve = next(line for line in bare.report(last).kinds if line.kind == "solve")
    assert next(p for p in own if p.measure == "solved (in training)").value == solve.accuracy
    assert {point.measure for point in found.curves if point.arm == "bare"} >= {"solved (in training)"}
    assert not found.problems
