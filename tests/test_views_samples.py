"""Outputs, one by one and as a table: equal to the documented queries and to the records."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from spark_kernel.config import load_config
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.records import Period
from spark_kernel.runs.writer import RunWriter
from tests.helpers.documented import ask
from tests.helpers.recorded_runs import ENVIRONMENT, make_round, write_round
from workbench.recorded import recorded_run
from workbench.views import COLUMNS, Preset, RolloutTable, RunView

CONFIG = load_config("quickstart", rounds=3).to_yaml()


@pytest.fixture(scope="module")
def view() -> RunView:
    return RunView(recorded_run())


@pytest.fixture(scope="module")
def everything(view: RunView) -> RolloutTable:
    return view.rollouts(view.rounds())


def test_rows_hold_what_was_recorded(view: RunView, everything: RolloutTable) -> None:
    assert tuple(everything.table.column_names) == COLUMNS
    rows = iter(everything.rows())
    for round in view.reader.rounds:
        records = view.reader.read_round(round)
        golds = {problem.id: (problem.question, problem.gold) for problem in records.problems}
        for period, groups in records.groups.items():
            for group in groups:
                for rollout in group.rollouts:
                    row = next(rows)
                    score = rollout.score
                    assert score is not None
                    assert (row["id"], row["round"], row["period"], row["sample"]) == (
                        rollout.id,
                        round,
                        period,
                        rollout.index,
                    )
                    assert (row["kind"], row["origin"], row["view"], row["label"]) == (
                        group.task.kind,
                        group.task.origin,
                        group.task.view,
                        group.task.label,
                    )
                    assert (row["answer"], row["correct"], row["reward"], row["parse"], row["reason"]) == (
                        score.answer,
                        score.correct,
                        score.reward,
                        score.parse,
                        score.reason,
                    )
                    assert (row["advantage"], row["text"], row["tokens"]) == (
                        rollout.advantage,
                        rollout.text,
                        len(rollout.token_ids),
                    )
                    assert row["mean_logprob"] == pytest.approx(sum(rollout.logprobs) / len(rollout.logprobs))
                    if group.task.problem_id in golds:
                        assert (row["question"], row["gold"]) == golds[group.task.problem_id]
    assert next(rows, None) is None


def test_judged_counts_and_fooled_are_those_of_the_queries(view: RunView, everything: RolloutTable) -> None:
    judged = {row["id"]: (row["judged_right"], row["judged_wrong"]) for row in ask(view.reader, "judged")}
    rows = everything.rows()
    assert {row["id"]: (row["judged_right"], row["judged_wrong"]) for row in rows if row["id"] in judged} == judged
    assert all((row["judged_right"], row["judged_wrong"]) == (0, 0) for row in rows if row["id"] not in judged)
    found = {row["id"] for row in everything.filter(Preset.FOOLED).rows()}
    assert found
    assert {row["id"] for row in ask(view.reader, "fooled")} <= found
    assert found == {key for key, (right, _) in judged.items() if right and _wrong(rows, key)}


def _wrong(rows: list[dict[str, object]], key: str) -> bool:
    return next(row for row in rows if row["id"] == key)["correct"] is False


def test_rows_say_what_a_comparison_showed_and_what_a_reflection_looked_at(
    view: RunView, everything: RolloutTable
) -> None:
    reader = view.reader
    outputs = {row["id"]: row for row in everything.rows()}
    records = [reader.read_round(round) for round in reader.rounds]
    tasks = {group.task.id: group.task for round in records for groups in round.groups.values() for group in groups}
    seen = set()
    for row in outputs.values():
        sources = [outputs[name] for name in tasks[row["task_id"]].sources if name in outputs]
        if row["kind"] == "pairwise":
            assert row["pair"] == [source["answer"] for source in sources]
        elif row["kind"] == "reflection":
            assert row["reflected_on"] == ("right" if sources[0]["correct"] else "wrong")
        else:
            assert row["pair"] is row["reflected_on"] is None
        seen.add(row["kind"])
    assert {"pairwise", "reflection", "solve"} <= seen
    # Also where the problem was asked in an earlier round.
    questions = {problem.id: problem.question for round in records for problem in round.problems}
    assert all(row["question"] == questions[row["problem_id"]] for row in outputs.values())


def test_filters_are_what_they_say(everything: RolloutTable) -> None:
    rows = everything.rows()
    disagrees = [
        row["id"]
        for row in rows
        if (row["correct"] is False and row["judged_right"])
        or (row["correct"] and row["judged_wrong"])
        or (row["kind"] in ("pointwise", "pairwise") and row["correct"] is False and row["parse"] == "ok")
    ]
    assert [row["id"] for row in everything.filter("judge disagrees with verifier").rows()] == disagrees
    unparseable = [row["id"] for row in rows if row["parse"] in ("none", "ambiguous")]
    assert [row["id"] for row in everything.filter(Preset.UNPARSEABLE).rows()] == unparseable
    assert unparseable
    expected = {
        Preset.JUDGED_WRONG: [
            row for row in rows
            if row["kind"] in ("pointwise", "pairwise") and row["parse"] == "ok" and row["correct"] is False
        ],
        Preset.PAIRS_WRONG: [
            row for row in rows if row["kind"] == "pairwise" and row["parse"] == "ok" and row["correct"] is False
        ],
        Preset.REJECTED_RIGHT: [row for row in rows if row["correct"] and row["judged_wrong"]],
        Preset.SPOILT: [row for row in rows if row["reflected_on"] == "right" and row["correct"] is False],
        Preset.MENDED: [row for row in rows if row["reflected_on"] == "wrong" and row["correct"]],
    }  # fmt: skip
    for preset, found in expected.items():
        assert everything.filter(preset).rows() == found, preset
        assert found, preset
    chosen = everything.filter(kind="pairwise", origin="reflection", correct=True, text="BOXED{a}").rows()
    assert [row["id"] for row in chosen] == [
        row["id"]
        for row in rows
        if (row["kind"], row["origin"], row["correct"]) == ("pairwise", "reflection", True)
        and "boxed{a}" in row["text"].lower()
    ]
    assert chosen
    one = rows[40]
    assert everything.filter(text=one["id"].upper()).rows() == [one]
    assert everything.filter(text="nothing says this").count == 0
    assert everything.counts()["all"] == everything.count == len(rows)
    assert everything.rows(5, 2) == rows[5:7]
    with pytest.raises(InputError, match='no filter "bad"'):
        everything.filter("bad")


def test_what_changed_is_found_where_a_problem_comes_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as writer:
        write_round(writer, 1)
        first, _, _ = make_round(1)
        for round in (2, 3):
            records, _, report = make_round(round)
            # The second round's outputs, but about the first round's problems.
            renamed = dict(zip((p.id for p in records.problems), (p.id for p in first.problems), strict=True))
            groups = {
                period: tuple(
                    dataclasses.replace(g, task=dataclasses.replace(g.task, problem_id=renamed[g.task.problem_id]))
                    for g in members
                )
                for period, members in records.groups.items()
            }
            problems = tuple(dataclasses.replace(p, id=renamed[p.id]) for p in records.problems)
            writer.finish_round(dataclasses.replace(records, problems=problems, groups=groups), report)
    view = RunView(run)
    table = view.rollouts([1, 2, 3])
    met = {(row["round"], row["problem_id"]): row["was_right"] for row in ask(view.reader, "met_before")}
    rows = table.rows()
    words = {None: None, True: "right", False: "wrong"}
    for row in rows:
        expected = words[met.get((row["round"], row["problem_id"]))] if row["kind"] == "solve" else None
        assert row["before"] == expected
    changed = [row for row in rows if row["before"] and row["correct"] is not None]
    changed = [row for row in changed if row["correct"] != (row["before"] == "right")]
    assert table.filter(Preset.CHANGED).rows() == changed
    assert {row["round"] for row in changed} == {2, 3}


def test_held_out_outputs_are_compared_with_the_evaluation_before(view: RunView) -> None:
    changed = view.evaluation_rollouts(12).filter(Preset.CHANGED).rows()
    before, after = (view.reader.read_evaluation(round).groups for round in (6, 12))
    expected = []
    for part in ("solve", "loop/solve"):
        old = {(g.task.problem_id, r.index): r.score for g in before[part] for r in g.rollouts}
        for group in after[part]:
            for rollout in group.rollouts:
                was = old[group.task.problem_id, rollout.index]
                assert was is not None
                assert rollout.score is not None
                if was.correct != rollout.score.correct:
                    expected.append(rollout.id)
    assert expected
    assert [row["id"] for row in changed] == expected
    assert view.evaluation_rollouts(0).filter(Preset.CHANGED).count == 0


def test_detail_of_an_output(view: RunView, everything: RolloutTable) -> None:
    row = next(row for row in everything.filter(kind="solve").rows() if row["judged_right"] + row["judged_wrong"] > 3)
    records = view.reader.read_round(row["round"])
    group = next(g for g in records.groups[Period.POLICY] if g.task.id == row["task_id"])
    rollout = group.rollouts[row["sample"]]
    detail = view.rollout(row["round"], row["id"], decode=lambda ids: [f"<{i}>" for i in ids])
    assert detail.row == row
    assert [(t.text, t.id, t.logprob) for t in detail.tokens] == [
        (f"<{i}>", i, p) for i, p in zip(rollout.token_ids, rollout.logprobs, strict=True)
    ]
    assert [text for _, text in detail.messages] == [message.text for message in group.task.messages]
    assert [sibling.id for sibling in detail.siblings] == [r.id for r in group.rollouts]
    assert len(detail.verdicts) == row["judged_right"] + row["judged_wrong"]
    judges = {(r.id): (r, g.task) for rs in _reward_groups(view, row["round"]) for g in rs for r in g.rollouts}
    for verdict in detail.verdicts:
        judge, task = judges[verdict.rollout_id]
        assert row["id"] in task.sources
        assert judge.score is not None
        assert (verdict.text, verdict.is_right, verdict.view) == (judge.text, judge.score.correct, task.view)
        if verdict.kind == "pointwise":
            assert verdict.says_right is (judge.score.answer == "Yes")
            assert verdict.is_right is (verdict.says_right == row["correct"])
        else:
            assert verdict.position == "AB"[task.sources.index(row["id"])]
            assert verdict.says_right is (judge.score.answer == verdict.position)
    assert [t.text for t in view.rollout(row["round"], row["id"]).tokens] == [""] * len(rollout.token_ids)
    with pytest.raises(RunFolderError, match="no output nobody"):
        view.rollout(row["round"], "nobody")
    held_out = view.evaluation_rollouts(12).filter(period="own/pointwise/full").rows()[0]
    assert view.evaluation_rollout(12, held_out["id"]).row == held_out


def _reward_groups(view: RunView, round: int) -> list[tuple[object, ...]]:
    rounds = [r for r in range(round, round + 3) if r in view.reader.rounds]
    return [view.reader.read_round(r).groups[Period.REWARD] for r in rounds]  # type: ignore[misc]


def test_the_round_in_flight_is_shown_phase_by_phase(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as writer:
        view = RunView(run)
        records, phases, _ = make_round(1)
        assert view.rounds() == ()
        for index, (period, phase, made) in enumerate(phases):
            if index == 0:
                made = dataclasses.replace(
                    made,
                    groups=tuple(
                        g.with_rollouts(tuple(dataclasses.replace(r, score=None, advantage=None) for r in g.rollouts))
                        for g in made.groups
                    ),
                )
            writer.record_phase(1, index, period, phase, made)
            table = view.rollouts([1])
            if index == 0:
                assert set(table.table["parse"].to_pylist()) == {None}
                assert view.tables(1).in_flight
                assert table.filter(Preset.FOOLED).count == 0
            if index == 1:
                fates = Counter(row.fate for row in view.recycled(1))
                assert fates["sampled"] == 0
                assert sum(fates.values()) == len(made.recycled)
        assert view.rollouts([1]).count == sum(len(g.rollouts) for gs in records.groups.values() for g in gs)
        assert view.judge(1, held_out=False).lines
        write_round(writer, 1)
        assert not view.tables(1).in_flight
        assert view.rollouts([1]).table["parse"].null_count == 0


def test_ten_thousand_outputs_stay_one_arrow_table(everything: RolloutTable) -> None:
    many = RolloutTable(pa.concat_tables([everything.table] * 6))
    assert many.count > 10_000
    assert (
        many.filter(Preset.FOOLED, text="boxed").count == 6 * everything.filter(Preset.FOOLED, text="boxed").count > 0
    )


def test_a_fork_shows_the_rounds_it_took_over(view: RunView, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    shutil.copytree(recorded_run(), fork)
    inherited = fork / "inherited" / "rounds"
    inherited.mkdir(parents=True)
    for round in range(1, 12):
        source = fork / "rounds" / f"{round:06d}"
        shutil.move(source, inherited / source.name) if round == 11 else shutil.rmtree(source)
    forked = RunView(fork)
    assert forked.rounds() == (12,)
    old = next(row for row in view.recycled(11) if row.fate_round == 12)
    found = forked.lineage(old.id, 11)
    assert found.row == old
    assert [source.text for source in found.sources] == [s.text for s in view.lineage(old.id, 11).sources]
