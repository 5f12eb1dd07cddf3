"""Recycled tasks, chains, judges and comparisons of runs: equal to the documented queries and to the records."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from spark_kernel.config import load_config
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.evaluate.compare import compare_runs
from spark_kernel.evaluate.intervals import mcnemar_exact
from spark_kernel.records import Period
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from tests.helpers.documented import ask
from tests.helpers.recorded_runs import ENVIRONMENT, make_evaluation, write_round
from workbench.recorded import recorded_run
from workbench.views import RunView, compare
from workbench.views.comparison import MEASURES, run_result

CONFIG = load_config("quickstart", rounds=3).to_yaml()
SAMPLES = load_config("quickstart").rollout.samples


def satisfies(answer: str | None, gold: str) -> bool:
    """Whether an answer to a puzzle is right, by Python itself: "x: x > 1; x mod 6 = 0" or "3, 5 with +: 8"."""
    if answer is None or not re.fullmatch(r"[-+*() \d]+", answer):
        return False
    head, _, body = gold.partition(": ")
    if " with " in head:
        numbers = sorted(map(int, head.split(" with ")[0].split(", ")))
        return sorted(map(int, re.findall(r"\d+", answer))) == numbers and eval(answer) == int(body)
    conditions = (re.sub(r"(?<![<>])=", "==", part.replace("mod", "%")) for part in body.split("; "))
    return all(eval(condition, {head: int(answer)}) for condition in conditions)


@pytest.fixture(scope="module")
def view() -> RunView:
    return RunView(recorded_run())


# Recycled tasks -------------------------------------------------------------------------------------------------------


def test_fates_are_those_of_the_funnel_query(view: RunView) -> None:
    counted: Counter[tuple[int, str, str]] = Counter()
    for round in view.reader.rounds:
        for row in view.recycled(round):
            counted[round, row.kind, row.fate] += 1
            counted[round, row.kind, "made"] += 1
            assert (row.fate_round is None) == (row.fate == "waiting")
            assert bool(row.reason) == (row.fate == "excluded")
            assert (row.outputs == SAMPLES) == (row.fate == "sampled")
    for row in ask(view.reader, "funnel"):
        for fate in ("made", "sampled", "excluded", "waiting"):
            assert counted.pop((row["round"], row["kind"], fate), 0) == row[fate]
    assert not counted


def test_funnel_adds_up_and_follows_from_the_queries(view: RunView) -> None:
    funnel = view.funnel(view.reader.rounds)
    for steps in (funnel.steps, *funnel.by_kind.values()):
        for step in steps:
            assert step.entered == step.remained + sum(step.left.values())
        made, sampled, scored, trained = steps
        assert sampled.entered == made.remained
        assert scored.entered == SAMPLES * sampled.remained
        assert trained.entered == scored.remained
    offers: Counter[tuple[str, str]] = Counter()
    for row in ask(view.reader, "offers"):
        offers[row["kind"], row["outcome"]] += row["n"]
    outcomes: Counter[tuple[str, str]] = Counter()
    for row in ask(view.reader, "trained"):
        outcomes[row["kind"], row["outcome"]] += row["n"]
    for kind, (made, _, _, trained) in funnel.by_kind.items():
        assert {"made": made.remained, **made.left} == {o: n for (k, o), n in offers.items() if k == kind}
        assert {"in the update": trained.remained, **trained.left} == {
            o: n for (k, o), n in outcomes.items() if k == kind
        }
    updates = [row for row in view.reader.table("updates").to_pylist() if row["period"] == "reward"]
    assert funnel.steps[-1].remained == sum(row["sequences"] for row in updates)


def test_lineage_of_a_judgement_is_that_of_the_query(view: RunView) -> None:
    rows = [row for row in ask(view.reader, "lineage") if row["round"] == 7]
    assert rows
    tasks = {row["id"]: row for row in view.reader.table("tasks", [7]).to_pylist()}
    for task_id in {row["task"] for row in rows}:
        task = tasks[task_id]
        found = view.lineage(task_id, task["made_round"])
        expected = [row for row in rows if row["task"] == task_id]
        assert [(o.answer, o.correct) for o in found.outputs] == [(r["verdict"], r["verdict_right"]) for r in expected]
        (source,) = found.sources
        assert (source.id, source.answer, source.correct) == (
            expected[0]["source"],
            expected[0]["judged_answer"],
            expected[0]["source_correct"],
        )
        assert found.source_policy_version == task["source_policy_version"] == source.policy_version
        assert (found.row.label, found.row.fate, found.row.fate_round) == (task["label"], "sampled", 7)
        assert found.label_map == (dict(task["label_map"]) if task["label_map"] else None)
        assert source.answer is not None
        assert source.answer in "".join(text for _, text in found.messages)
        assert found.question
        assert found.update["loss"] == next(u.loss for u in view.reader.report(7).updates if u.period is Period.REWARD)
        for output in found.outputs:
            assert output.in_update is not bool(output.left_out)


def test_lineage_of_a_pair_and_of_a_reflection(view: RunView) -> None:
    rows = [row for round in view.reader.rounds for row in view.recycled(round) if row.fate == "sampled"]
    pair = next(row for row in rows if row.kind == "pairwise" and row.origin == "reflection")
    found = view.lineage(pair.id, pair.made_round)
    assert [source.position for source in found.sources] == ["A", "B"]
    assert found.order == pair.label
    assert [source.correct for source in found.sources].index(True) == "AB".index(pair.label)
    assert {source.correct for source in found.sources} == {True, False}
    assert all(source.text for source in found.sources)
    reflection = next(row for row in rows if row.kind == "reflection")
    answers = view.lineage(reflection.id, reflection.made_round).answers
    by_version = {
        (row["policy_version"], row["round"], row["kind"]): (row["n"], row["n_right"])
        for row in ask(view.reader, "answers_by_version")
        if row["problem_id"] == reflection.problem_id
    }
    assert {(a.policy_version, a.round, a.kind): (a.n, a.right) for a in answers} == by_version
    assert len({a.policy_version for a in answers}) >= 2  # before and after an update
    with pytest.raises(RunFolderError, match="made no task nobody"):
        view.lineage("nobody", 3)


# Chains and judges ----------------------------------------------------------------------------------------------------


def test_chains_agree_with_the_evaluation_and_the_queries(view: RunView) -> None:
    written = {row["round"]: row for row in ask(view.reader, "loop")}
    steps = ask(view.reader, "loop_steps")
    for round in view.evaluations():
        found = view.self_correction(round)
        assert found is not None
        row = written[round]
        assert found.transitions == {name: row[name] for name in found.transitions}
        assert (found.before[0], found.after[0]) == (row["before"], row["after"])
        assert (found.tokens_first, found.tokens) == (row["tokens_first"], row["tokens"])
        assert found.mcnemar_p == row["mcnemar_p"] == mcnemar_exact(row["wrong_right"], row["right_wrong"])
        assert dict(Counter(chain.stop for chain in found.chains)) == found.stops
        flat = [
            (chain.problem_id, step.index, step.kind, step.answer, step.correct, step.tokens)
            for chain in sorted(found.chains, key=lambda chain: chain.problem_id)
            for step in chain.steps
        ]
        assert flat == [
            (s["problem_id"], s["step"], s["kind"], s["answer"], s["correct"], s["tokens"])
            for s in steps
            if s["round"] == round
        ]
        for chain in found.chains:
            assert chain.first.correct is satisfies(chain.first.answer, chain.gold)
            assert [step.about for step in chain.steps if step.kind == "pointwise"][:1] == [0]
        assert sum(len(found.with_transition(name)) for name in found.transitions) == found.n
        votes = {row["method"]: row for row in ask(view.reader, "votes") if row["round"] == round}
        assert {item.name for item in found.alternatives} == set(votes) == {"vote", "best_of", "weighted_vote"}
        for item in found.alternatives:
            row = votes[item.name]
            assert (item.accuracy[0], item.tokens, item.budget, item.samples, item.mcnemar_p) == tuple(
                row[name] for name in ("accuracy", "tokens", "budget", "samples", "mcnemar_p")
            )
    assert any(chain.transition == "right_wrong" for chain in view.self_correction(0).chains)  # type: ignore[union-attr]


def test_an_evaluation_without_a_loop_has_no_chains(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", CONFIG, ENVIRONMENT) as writer:
        writer.write_evaluation(*make_evaluation(0))
    view = RunView(tmp_path / "run")
    assert view.self_correction(0) is None
    line = view.judge(0, held_out=True).line("own/pointwise")
    assert line is not None
    assert line.n == sum(line.confusion.values()) > 0
    assert (line.figures, line.calibration, line.flag) == ({}, (), "")


def test_judges_agree_with_the_queries(view: RunView) -> None:
    held_out = ask(view.reader, "held_out_confusion")
    bins = ask(view.reader, "calibration")
    for round in view.evaluations():
        detail = view.judge(round, held_out=True)
        for line in detail.lines:
            expected = {
                (r["label"], r["verdict"]): r["n"] for r in held_out if (r["round"], r["part"]) == (round, line.name)
            }
            assert {cell: n for cell, n in line.confusion.items() if n} == expected
            right = sum(n for (label, verdict), n in line.confusion.items() if label == verdict)
            assert line.figures["accuracy"] == pytest.approx(right / line.n)
            assert [(b.low, b.n, b.probability, b.correct) for b in line.calibration] == [
                (b["low"], b["n"], b["probability"], b["correct"])
                for b in bins
                if (b["round"], b["line"]) == (round, line.name)
            ]
        for row in ask(view.reader, "swapped"):
            if row["round"] == round:
                found = detail.line(row["part"])
                assert found is not None
                assert (found.swapped["pairs"], found.swapped["readable"]) == (row["pairs"], row["readable"])
                assert found.swapped["agreement"] == pytest.approx(row["agree"] / row["readable"])
    on_policy = ask(view.reader, "confusion")
    for round in view.reader.rounds:
        cells: Counter[tuple[str, str, str]] = Counter()
        for line in view.judge(round, held_out=False).lines:
            for (label, verdict), n in line.confusion.items():
                cells[line.kind, label, verdict] += n
            assert line.figures["n"] == line.n
        assert {key: n for key, n in cells.items() if n} == {
            (r["kind"], r["label"], r["verdict"]): r["n"] for r in on_policy if r["round"] == round
        }


# Comparison -----------------------------------------------------------------------------------------------------------


def test_two_runs_are_compared_at_matched_cost_with_differing_settings_only(view: RunView, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(recorded_run(), other)
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.0004", "learning_rate: 0.0001"))
    info = other / "run.json"
    info.write_text(info.read_text().replace('"quickstart"', '"other"'))
    shutil.rmtree(other / "evaluations" / "000012")
    readers = [view.reader, RunReader(other)]
    found = compare(readers, seed=3)
    assert found.names == ("quickstart", "other")
    assert [(row.setting, row.values) for row in found.settings] == [("learner.learning_rate", ("0.0004", "0.0001"))]
    results = [run_result(reader, name) for reader, name in zip(readers, found.names, strict=True)]
    expected = compare_runs(results[0], results[1], [measure for measure, _ in MEASURES], seed=3)
    assert tuple(row.comparison for row in found.rows) == expected
    assert all(row.sentence.startswith("Not enough evidence") for row in found.rows)
    assert not any(row.enough for row in found.rows)
    assert {p.round for p in found.points if p.run == "other"} == {6}
    lines = {(row["round"], row["line"]): row for row in ask(view.reader, "held_out_lines")}
    point = next(p for p in found.points if p.run == "quickstart" and p.measure == "accuracy, sampled")
    assert (point.value, point.low, point.high, point.n) == tuple(
        lines[12, "solve"][k] for k in ("accuracy", "low", "high", "n")
    )
    costs = {row["round"]: (row["rollouts_so_far"], row["steps_so_far"]) for row in ask(view.reader, "cost")}
    for checkpoint in results[0].checkpoints:
        assert (checkpoint.rollouts, checkpoint.optimizer_steps) == costs.get(checkpoint.round, (0, 0))


def test_runs_that_cannot_be_compared_say_why(view: RunView, tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "bare", CONFIG, ENVIRONMENT) as writer:
        write_round(writer, 1)
    found = compare([view.reader, RunReader(tmp_path / "bare")])
    assert not found.rows
    assert any(note.startswith("Not enough evidence: Run bare has no held-out evaluation") for note in found.notes)
    with pytest.raises(InputError, match="at least two"):
        compare([view.reader])
