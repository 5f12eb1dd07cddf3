"""A phase works on the groups it is handed: edited ones are trained on, written down, and honoured by a resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spark_kernel.errors import PhaseError, Stopped
from spark_kernel.records import ExclusionReason, Group, Period
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import go_back, resume_run, start_run
from spark_kernel.training.trainer import Trainer
from tests.helpers.runs import fingerprint, tiny_config


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("handed")


def reversed_advantages(groups: Sequence[Group]) -> list[Group]:
    """Every advantage with its sign turned: the update goes the other way."""
    return [
        group.with_rollouts(
            tuple(replace(r, advantage=None if r.advantage is None else -r.advantage) for r in group.rollouts)
        )
        for group in groups
    ]


def fewer(groups: Sequence[Group]) -> list[Group]:
    """Without the first group, and with two rollouts in each other one."""
    return [group.with_rollouts(group.rollouts[:2]) for group in groups[1:]]


def start(base: Path, run: Path) -> Trainer:
    return start_run(tiny_config(base, rounds=2, evaluation__every=0, checkpoint__every=5), run)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.parts.learner.policy.network.state_dict().items()}


@pytest.mark.slow
def test_an_update_trains_on_what_it_is_handed(base: Path, tmp_path: Path) -> None:
    """An oracle by another way: the same learner called on the edited groups without a trainer."""
    with start(base, tmp_path / "a") as trainer:
        groups = trainer.verify(trainer.roll_out())
        edited = reversed_advantages(groups)
        trainer.recycle(groups)
        trainer.update(edited)
        found = weights(trainer)
    with start(base, tmp_path / "b") as trainer:
        before = weights(trainer)
        trainer.parts.learner.update(edited, period=Period.POLICY, round=1)
        expected = weights(trainer)
    with start(base, tmp_path / "c") as trainer:
        plain = trainer.verify(trainer.roll_out())
        trainer.recycle(plain)
        trainer.update(plain)
        unedited = weights(trainer)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert any(not torch.equal(found[name], before[name]) for name in found)
    assert any(not torch.equal(found[name], unedited[name]) for name in found)


def test_the_run_folder_holds_what_was_used_with_a_note_and_a_reason(base: Path, tmp_path: Path) -> None:
    with start(base, tmp_path / "run") as trainer:
        groups = trainer.verify(trainer.roll_out())
        trainer.recycle(groups)
        cut = fewer(groups)
        trainer.update(cut)
        report = trainer.round()
        assert trainer.completed == 1
    reader = RunReader(tmp_path / "run")
    rows = [row for row in reader.table("rollouts").to_pylist() if row["period"] == "policy"]
    assert sorted(row["id"] for row in rows) == sorted(r.id for group in cut for r in group.rollouts)
    taken_out = {r.id for group in groups for r in group.rollouts} - {row["id"] for row in rows}
    excluded = {
        row["subject_id"]
        for row in reader.table("exclusions").to_pylist()
        if row["reason"] == ExclusionReason.BY_HAND and row["stage"] == "update"
    }
    assert excluded == taken_out != set()
    note = f"By hand before update (policy period): of {4 * len(groups)} rollouts {len(taken_out)} taken out."
    assert note in report.notes


def test_recycling_offers_only_what_it_is_handed(base: Path, tmp_path: Path) -> None:
    with start(base, tmp_path / "run") as trainer:
        groups = trainer.verify(trainer.roll_out())
        one = [group for group in groups if group.is_mixed][:1]
        made = trainer.recycle(one)
        assert {task.problem_id for task in made.tasks} == {one[0].task.problem_id}
        stats = trainer.update()  # nothing handed: what the phase before worked on
        assert stats is not None
        assert stats.sequences <= len(one[0].rollouts)


def edited_rounds(trainer: Trainer) -> None:
    """Two rounds by hand in which every phase is handed something else."""
    while trainer.completed < 2:
        groups = trainer.verify(list(reversed(trainer.roll_out())))
        trainer.recycle(groups[1:])
        trainer.update(reversed_advantages(groups))
        judged = trainer.verify(trainer.roll_out())
        trainer.recycle(judged)
        trainer.update(judged[:-1])
        trainer.report()
    trainer.checkpoint()


@pytest.mark.slow
def test_edited_rounds_replay_bit_for_bit(base: Path, tmp_path: Path) -> None:
    """Without its checkpoint a run is repeated from the recorded rounds: edits, tasks and weights come out the same."""
    with start(base, tmp_path / "run") as trainer:
        edited_rounds(trainer)
    before = fingerprint(tmp_path / "run")
    for checkpoint in RunReader(tmp_path / "run").checkpoints:
        for path in sorted(checkpoint.path.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        checkpoint.path.rmdir()
    with resume_run(tmp_path / "run") as trainer:
        trainer.checkpoint()
    assert fingerprint(tmp_path / "run") == before
    with go_back(tmp_path / "run", 1) as trainer:
        assert trainer.completed == 1


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1])
def test_a_stop_in_an_update_of_edited_groups_goes_on_with_them(base: Path, tmp_path: Path, steps: int) -> None:
    with start(base, tmp_path / "straight") as trainer:
        groups = trainer.verify(trainer.roll_out())
        trainer.recycle(groups)
        trainer.update(reversed_advantages(groups))
        expected = weights(trainer)
    with start(base, tmp_path / "run") as trainer:
        groups = trainer.verify(trainer.roll_out())
        trainer.recycle(groups)
        learner, checks = trainer.parts.learner, 0

        def stop_after_steps() -> None:
            nonlocal checks
            checks += 1
            if learner.in_update if steps else checks > 1:
                raise Stopped

        trainer.stop.check = stop_after_steps  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            trainer.update(reversed_advantages(groups))
        if steps:
            with pytest.raises(PhaseError, match="half done with other groups"):
                trainer.update(groups)
        trainer.checkpoint()
    with resume_run(tmp_path / "run") as trainer:
        assert str(trainer.due) == "update (policy period)"
        trainer.update()
        found = weights(trainer)
        report = trainer.round()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert sum("By hand before update" in note for note in report.notes) == 1


def test_groups_that_cannot_be_used_are_refused_in_one_sentence(base: Path, tmp_path: Path) -> None:
    with start(base, tmp_path / "run") as trainer:
        groups = trainer.roll_out()
        stranger = replace(groups[0], task=replace(groups[0].task, id="other"))
        with pytest.raises(PhaseError, match="a group of task other, which is none of the 6 groups"):
            trainer.verify([stranger])
        with pytest.raises(PhaseError, match=r"the group of task .* twice"):
            trainer.verify([groups[0], groups[0]])
        swapped = groups[0].with_rollouts(groups[1].rollouts)
        with pytest.raises(PhaseError, match="a group holds answers to its own task"):
            trainer.verify([swapped])
        doubled = groups[0].with_rollouts((groups[0].rollouts[0],) * 2)
        with pytest.raises(PhaseError, match="give each rollout an id of its own"):
            trainer.verify([doubled])
        empty = groups[0].with_rollouts((replace(groups[0].rollouts[0], token_ids=()),))
        with pytest.raises(PhaseError, match="0 token ids"):
            trainer.verify([empty])
        scored = trainer.verify(groups)
        with pytest.raises(PhaseError, match="without a score: call verify first"):
            trainer.recycle(groups)
        trainer.recycle(scored)
        bare = [g.with_rollouts(tuple(replace(r, advantage=None) for r in g.rollouts)) for g in scored]
        with pytest.raises(PhaseError, match="a reward but no advantage"):
            trainer.update(bare)
        assert trainer.update(scored) is not None  # a refusal leaves everything as it was
