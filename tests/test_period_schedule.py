"""Which periods a round has: what a schedule says, round by round, and that a run does it and resumes it."""

from __future__ import annotations

from itertools import chain, cycle, islice, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spark_kernel.config import RunConfig, load_config
from spark_kernel.config.periods import PeriodSection
from spark_kernel.errors import InputError
from spark_kernel.records import Period
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.assembly import make_learner
from spark_kernel.training.lifecycle import resume_run, start_run
from spark_kernel.training.state import schedule
from tests.helpers.kill_target import killed
from tests.helpers.runs import fingerprint, tiny_config

WORDS = ("policy", "reward", "both")


def written_out(steps: list[tuple[int, str]], last: str | None, rounds: int) -> list[str]:
    """Oracle: what each round trains, by writing the steps one after the other."""
    listed = list(chain.from_iterable(repeat(word, count) for count, word in steps))
    return list(islice(chain(listed, repeat(last)) if last else cycle(listed), rounds))


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(WORDS)), min_size=1, max_size=4),
    st.none() | st.sampled_from(WORDS),
)
def test_a_schedule_says_what_each_round_trains(steps: list[tuple[int, str]], last: str | None) -> None:
    texts = [f"{count} {word}" for count, word in steps] + ([last] if last else [])
    if len({text.split()[-1] for text in texts}) == 1:
        with pytest.raises(ValidationError, match="every step trains"):
            PeriodSection(schedule=tuple(texts))
        return
    period = PeriodSection(schedule=tuple(texts))
    expected = written_out(steps, last, 60)
    assert [period.trains(round) for round in range(1, 41)] == expected[:40]
    for round in range(1, 21):
        later = [wait for wait, word in enumerate(expected[round - 1 :]) if word != "policy"]
        assert period.rounds_to_reward(round) == (later[0] if later else None)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["0 policy", "both"], "is no step"),
        (["policy 3", "both"], "is no step"),
        (["judge"], "is no step"),
        (["both", "3 policy"], "must be the last one"),
    ],
)
def test_what_is_no_schedule_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_config("quickstart", period__schedule=texts)


def test_a_schedule_beside_a_switch_that_is_off_is_refused() -> None:
    with pytest.raises(InputError, match="or the schedule out"):
        load_config("quickstart+policy-only", period__schedule=["2 policy", "1 both"])


@pytest.mark.parametrize("order", ["alternating", "joint"])
def test_the_stages_of_a_round_follow_the_schedule(order: str) -> None:
    period = load_config("quickstart", period__order=order, period__schedule=["1 policy", "1 reward", "1 both"]).period
    found = [[str(stage) for stage in schedule(period, round)] for round in (1, 2, 3)]
    updates = [[text for text in stages if text.startswith("update")] for stages in found]
    joint = [["update (joint period)"]] * 3
    own = [["update (policy period)"], ["update (reward period)"], ["update (policy period)", "update (reward period)"]]
    assert updates == (joint if order == "joint" else own)
    assert ["roll_out (reward period)" in stages for stages in found] == [False, True, True]
    assert all(stages[0] == "roll_out (policy period)" for stages in found)


def test_the_horizon_counts_the_steps_of_each_round(tmp_path: Path) -> None:
    """24 sequences a period in two optimizer steps; by hand: 4 rounds of policy, of reward, of both, of policy."""
    from spark_kernel.models.policy import load_policy

    def horizon(**changes: Any) -> int:
        config = tiny_config(tmp_path, rounds=4, **changes)
        return make_learner(config, load_policy(config.model), tmp_path).horizon_steps

    assert horizon() == 4 * (2 + 2)
    assert horizon(period__schedule=["1 policy", "1 reward", "1 both"]) == 2 + 2 + 4 + 2


# Real runs ------------------------------------------------------------------------------------------------------------


def scheduled(base: Path, **overrides: Any) -> RunConfig:
    settings: dict[str, Any] = {"rounds": 4, "evaluation__every": 0, "period__schedule": ["2 policy", "1 both"]}
    return tiny_config(base, **(settings | overrides))


def updated(run: Path) -> list[list[Period]]:
    return [[update.period for update in report.updates] for report in RunReader(run).reports()]


@pytest.mark.slow
def test_a_run_has_the_periods_of_its_schedule_and_recycles_what_can_be_taken(tmp_path: Path) -> None:
    """A task may wait one round (recycle.max_age): round 1 of the cycle makes none that a reward period could take."""
    places = {"judge_quota": 40, "reflection_quota": 40}
    with start_run(scheduled(tmp_path, recycle=places), tmp_path / "run") as trainer:
        trainer.train()
    both = [Period.POLICY, Period.REWARD]
    assert updated(tmp_path / "run") == [[Period.POLICY], [Period.POLICY], both, [Period.POLICY]]
    reports = RunReader(tmp_path / "run").reports()
    assert [bool(report.recycled) for report in reports] == [False, True, True, False]
    assert "nothing is recycled" in reports[0].notes[0]
    assert reports[1].notes == ("No reward period in this round by period.schedule.",)
    rounds = {row["made_round"] for row in RunReader(tmp_path / "run").table("tasks").to_pylist() if row["sources"]}
    assert rounds == {2, 3}
    assert reports[3].queue_length == 0 or not any("too_old" in name for name in reports[3].exclusions)


@pytest.mark.slow
def test_reward_first_leaves_the_policy_to_the_judging_tasks(tmp_path: Path) -> None:
    config = scheduled(tmp_path, period__schedule=["2 reward", "policy"], rounds=3)
    with start_run(config, tmp_path / "run") as trainer:
        trainer.train()
    assert updated(tmp_path / "run") == [[Period.REWARD], [Period.REWARD], [Period.POLICY]]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["alternating", "joint"])
def test_killed_in_any_kind_of_round_it_resumes_bit_for_bit(tmp_path: Path, order: str) -> None:
    changes = {
        "period__schedule": ["1 policy", "1 reward", "1 both"],
        "verify__flip_share": 0.3,
        "period__order": order,
    }
    with start_run(tiny_config(tmp_path, **changes), tmp_path / "whole") as trainer:
        trainer.train()
    for where in ("policy/verify@1", "reward/roll_out@2", "policy/roll_out@3", "fsync"):
        assert killed(tmp_path, tmp_path / "run", where, 20 if where == "fsync" else 2, changes)
    with resume_run(tmp_path / "run") as trainer:
        trainer.train()
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
