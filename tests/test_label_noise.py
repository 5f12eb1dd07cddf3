"""Label noise on purpose: which verdicts are turned round, that it is said, and that evaluations have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_kernel.records import Group, Kind, Parse, Score
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import start_run
from spark_kernel.verify.label_noise import flip_verdicts
from tests.helpers.records import make_group
from tests.helpers.runs import tiny_config


def group_of(kind: Kind, name: str, parses: list[Parse], rewards: list[float]) -> Group:
    group = make_group(name, "a question", [[1, 2]] * len(rewards), rewards, kind=kind)
    scores = [Score(reward, reward >= 1.0, parse) for reward, parse in zip(rewards, parses, strict=True)]
    rollouts = (replace(rollout, score=score) for rollout, score in zip(group.rollouts, scores, strict=True))
    return group.with_rollouts(tuple(rollouts))


def test_verdicts_on_answers_are_turned_round_and_say_so() -> None:
    groups = [group_of(kind, str(kind), [Parse.OK] * 3, [1.0, 0.0, 0.25]) for kind in (Kind.SOLVE, Kind.REFLECTION)]
    noisy, flipped, among = flip_verdicts(groups, 1.0, seed=0, round=1)
    assert (flipped, among) == (6, 6)
    for group in noisy:
        assert group.rewards == (0.0, 1.0, 0.75)
        assert [rollout.score.correct for rollout in group.rollouts if rollout.score] == [False, True, True]
        assert all(rollout.score and rollout.score.flipped for rollout in group.rollouts)
        assert "found it right" in (group.rollouts[0].score or Score(0.0, False, Parse.OK)).reason


def test_an_output_without_an_answer_and_a_judges_output_stay_as_they_are() -> None:
    groups = [
        group_of(Kind.SOLVE, "unread", [Parse.NONE, Parse.AMBIGUOUS], [0.0, 0.0]),
        group_of(Kind.POINTWISE, "judge", [Parse.OK, Parse.OK], [1.0, 0.0]),
        group_of(Kind.PAIRWISE, "pair", [Parse.OK, Parse.OK], [1.0, 0.0]),
    ]
    noisy, flipped, among = flip_verdicts(groups, 1.0, seed=0, round=1)
    assert (noisy, flipped, among) == (groups, 0, 0)


def test_the_share_is_drawn_by_key_whatever_the_order() -> None:
    groups = [group_of(Kind.SOLVE, f"task {n}", [Parse.OK] * 4, [1.0, 0.0, 1.0, 0.0]) for n in range(500)]

    def turned(members: list[Group], **key: int) -> set[str]:
        noisy = flip_verdicts(members, 0.2, **key)[0]
        return {r.id for group in noisy for r in group.rollouts if r.score is not None and r.score.flipped}

    first = turned(groups, seed=3, round=2)
    assert abs(len(first) / 2000 - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5  # four standard errors of 2000 draws
    assert turned(groups[::-1], seed=3, round=2) == first
    assert turned(groups, seed=4, round=2) != first
    assert turned(groups, seed=3, round=1) != first


@pytest.mark.slow
def test_a_run_records_what_was_turned_and_evaluates_without(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"rounds": 1, "evaluation__every": 1, "checkpoint__every": 1}
    for name, share in (("clean", 0.0), ("noisy", 0.5)):
        with start_run(tiny_config(tmp_path, **changes, verify__flip_share=share), tmp_path / name) as trainer:
            trainer.train()
    clean, noisy = RunReader(tmp_path / "clean"), RunReader(tmp_path / "noisy")
    solved = [
        {row["id"]: row for row in reader.table("rollouts").to_pylist() if row["kind"] == "solve"}
        for reader in (clean, noisy)
    ]
    turned = {name for name, row in solved[1].items() if row["reason"].startswith("Turned round by verify.flip_share")}
    assert turned
    assert turned < solved[1].keys()
    for name, row in solved[1].items():
        assert row["correct"] is (solved[0][name]["correct"] != (name in turned))
    read = sum(row["parse"] == "ok" for row in solved[1].values())
    assert f"{len(turned)} of {read} verdicts turned round in the policy period" in " ".join(noisy.reports()[0].notes)
    # Advantages and recycled labels are those of the turned verdicts.
    groups = noisy.read_round(1).groups
    for group in (group for members in groups.values() for group in members):
        mean = sum(reward for reward in group.rewards if reward is not None) / len(group.rollouts)
        assert all((r.advantage or 0.0) * ((r.score.reward or 0.0) - mean) >= 0 for r in group.rollouts if r.score)
    made = [
        row for row in noisy.table("recycled").to_pylist() if row["kind"] == "pointwise" and row["origin"] == "solve"
    ]
    assert made
    for row in made:
        assert row["source_correct"] == [solved[1][source]["correct"] for source in row["sources"]]
    first = [timeless(reader.table("eval_rollouts", [0]).to_pylist()) for reader in (clean, noisy)]
    assert first[0] == first[1]
    assert not any("Turned round" in (row["reason"] or "") for row in noisy.table("eval_rollouts").to_pylist())


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(tmp_path: Path, share: float) -> None:
    from spark_kernel.errors import InputError

    with pytest.raises(InputError, match=r"verify\.flip_share"):
        tiny_config(tmp_path, verify__flip_share=share)
