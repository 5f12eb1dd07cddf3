"""Further problems in place of flat groups: how many, up to which bound, and what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from spark_kernel.records import Group, Period
from spark_kernel.runs.bundles import PhaseRecords
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.events import Event
from spark_kernel.training.lifecycle import start_run
from spark_kernel.training.refill import Refill
from spark_kernel.training.state import RoundState
from tests.helpers.records import make_group
from tests.helpers.runs import fingerprint, tiny_config


def batch(name: str, flat: int, mixed: int) -> list[Group]:
    rewards = [[1.0, 1.0]] * flat + [[1.0, 0.0]] * mixed
    return [make_group(f"{name}{n}", "q", [[1]] * 2, reward) for n, reward in enumerate(rewards)]


def refilled(most: int, batches: Sequence[list[Group]]) -> tuple[list[int], PhaseRecords]:
    """How many each turn wanted, where the batches come one after the other, and the records."""
    refill = Refill(most, 0)
    records, wanted = PhaseRecords(groups=tuple(batches[0]), meta={"notes": ["first"]}), []
    current, rest = list(batches[0]), iter(batches[1:])
    while count := refill.wanted(current):
        wanted.append(count)
        current = refill.add(count, PhaseRecords(groups=tuple(next(rest)[:count])), ())
    return wanted, refill.completed(records, RoundState(round=1, cursor_after=9))


def test_each_flat_group_gets_one_further_problem_until_all_are_mixed() -> None:
    wanted, records = refilled(100, [batch("a", 5, 3), batch("b", 2, 3), batch("c", 0, 2)])
    assert wanted == [5, 2]
    assert len(records.groups) == 8 + 5 + 2
    assert sum(len(set(group.rewards)) > 1 for group in records.groups) == 8
    assert records.meta["notes"] == [
        "first",
        "rollout.refill: 5 of 8 groups were flat; 7 further problems in 2 turns, 2 of them flat.",
    ]
    assert records.meta["cursor"] == 9


def test_the_bound_ends_it() -> None:
    wanted, records = refilled(6, [batch("a", 8, 0), batch("b", 8, 0)])
    assert wanted == [6]
    assert "6 further problems in 1 turns, 6 of them flat (the bound is reached)." in records.meta["notes"][-1]


def test_nothing_flat_takes_nothing_and_says_nothing() -> None:
    wanted, records = refilled(6, [batch("a", 0, 4)])
    assert (wanted, dict(records.meta)) == ([], {"notes": ["first"]})


@pytest.mark.slow
def test_a_run_rolls_out_further_problems_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    changes = {"rounds": 2, "evaluation__every": 0, "rollout__samples": 2}
    for name, share in (("without", 0.0), ("with", 1.0)):
        with start_run(tiny_config(tmp_path, **changes, rollout__refill=share), tmp_path / name) as trainer:
            trainer.train()
    plain, more = RunReader(tmp_path / "without"), RunReader(tmp_path / "with")
    before, after = plain.read_round(1), more.read_round(1)
    solved = [records.groups[Period.POLICY] for records in (before, after)]
    flat = [sum(len(set(group.rewards)) < 2 for group in groups) for groups in solved]
    assert flat[0] > 0
    # The round's own problems and answers are those of a run without; the further ones come behind them.
    assert [group.task for group in solved[1][:6]] == [group.task for group in solved[0]]
    assert [r.token_ids for g in solved[1][:6] for r in g.rollouts] == [
        r.token_ids for g in solved[0] for r in g.rollouts
    ]
    further = len(solved[1]) - 6
    assert flat[0] <= further <= 6
    assert len({problem.id for problem in after.problems}) == len(after.problems) == 6 + further
    note = next(note for note in more.report(1).notes if note.startswith("rollout.refill"))
    assert f"{flat[0]} of 6 groups were flat; {further} further problems" in note
    # Flat groups stay on record, and the loss leaves each of their answers out with its reason.
    left_out = [row for row in more.table("exclusions", [1]).to_pylist() if row["reason"] == "zero_variance"]
    assert {row["kind"] for row in left_out} >= {"solve"}
    # The next round goes on behind them.
    assert not {problem.id for problem in after.problems} & {problem.id for problem in more.read_round(2).problems}


@pytest.mark.slow
def test_a_stop_between_further_problems_goes_on_as_if_there_had_been_none(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, rounds=1, evaluation__every=0, rollout__samples=2, rollout__refill=1.0)
    with start_run(config, tmp_path / "whole") as trainer:
        trainer.train()
    with start_run(config, tmp_path / "run") as trainer:
        seen: list[int] = []

        def stop(event: Event) -> None:
            taken = len(trainer.state.flight.problems)
            place = (event.name, event.phase, event.period) == ("progress", "verify", "policy")
            if place and taken > 6 and not seen:  # some further ones were taken already
                seen.append(taken)
                trainer.stop.ask()

        trainer.listeners.append(stop)
        trainer.train()
        assert trainer.stopped
        assert seen
        assert len(trainer.state.flight.problems) == 6
        trainer.train()
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


@pytest.mark.slow
def test_a_round_that_does_not_train_on_them_takes_none(tmp_path: Path) -> None:
    changes = {"rounds": 1, "evaluation__every": 0, "rollout__samples": 2, "rollout__refill": 1.0}
    with start_run(tiny_config(tmp_path, **changes, period__train_policy=False), tmp_path / "run") as trainer:
        trainer.train()
    assert len(RunReader(tmp_path / "run").read_round(1).problems) == 6
