"""The round: its phases, their order, its account, and how a run is stopped, resumed, taken back and forked."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from spark_kernel.errors import InputError, PhaseError, ProblemError, RunFolderError, RunLockedError
from spark_kernel.records import Kind, Origin, Period
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.events import Event
from spark_kernel.training.lifecycle import fork_run, go_back, resume_run, start_run, undo_back
from spark_kernel.training.trainer import Trainer
from tests.helpers.runs import fingerprint, tiny_config


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainer")


@pytest.fixture(scope="module")
def finished(base: Path) -> Path:
    """An uninterrupted run of four rounds."""
    with start_run(tiny_config(base), base / "finished") as trainer:
        trainer.train()
    return base / "finished"


def test_a_run_does_every_kind_of_work(finished: Path) -> None:
    reader = RunReader(finished)
    assert reader.rounds == [1, 2, 3, 4]
    assert reader.evaluations == [0, 4]
    tasks = reader.table("tasks").to_pylist()
    kinds = {(row["kind"], row["origin"]) for row in tasks}
    assert {("solve", "problem"), ("pointwise", "solve"), ("pairwise", "solve"), ("reflection", "solve")} <= kinds
    assert any(origin == "reflection" for _, origin in kinds)
    for report in reader.reports():
        assert [u.period for u in report.updates] == [Period.POLICY, Period.REWARD]
        assert report.policy_version == 2 * report.round
        assert all(u.optimizer_steps >= 1 and u.loss_tokens > 0 for u in report.updates)


def test_rollouts_carry_the_version_of_the_policy_that_wrote_them(finished: Path) -> None:
    for row in RunReader(finished).table("rollouts").to_pylist():
        before = 2 * (row["round"] - 1)
        assert row["policy_version"] == (before if row["period"] == "policy" else before + 1)


def test_every_sampled_output_is_a_row_and_every_left_out_one_has_a_reason(finished: Path) -> None:
    reader = RunReader(finished)
    rollouts = reader.table("rollouts").to_pylist()
    per_task = Counter(row["task_id"] for row in rollouts)
    tasks = reader.table("tasks").to_pylist()
    assert per_task == {row["id"]: 4 for row in tasks}
    left_out = Counter(
        (row["round"], row["kind"]) for row in reader.table("exclusions").to_pylist() if row["stage"] == "update"
    )
    for report in reader.reports():
        trained = sum(u.sequences for u in report.updates)
        sampled = sum(1 for row in rollouts if row["round"] == report.round)
        assert trained + sum(n for (round_, _), n in left_out.items() if round_ == report.round) == sampled


@pytest.mark.slow
def test_every_recycled_task_is_sampled_excluded_or_waits(finished: Path) -> None:
    reader = RunReader(finished)
    made = {row["id"] for row in reader.table("recycled").to_pylist()}
    sampled = {row["id"] for row in reader.table("tasks").to_pylist() if row["kind"] != "solve"}
    too_old = {r["subject_id"] for r in reader.table("exclusions").to_pylist() if r["stage"] == "queue"}
    waiting = reader.reports()[-1].queue_length
    assert sampled | too_old <= made
    assert not sampled & too_old
    assert len(made) == len(sampled) + len(too_old) + waiting


def test_phases_by_hand_give_the_run_that_train_gives(base: Path, finished: Path) -> None:
    config = tiny_config(base, evaluation__every=0)
    with start_run(config, base / "by-hand") as trainer:
        for _ in range(4):
            groups = trainer.verify(trainer.roll_out())
            assert trainer.recycle(groups).tasks
            trainer.update(groups)
            judged = trainer.verify(trainer.roll_out())
            assert {group.task.kind for group in judged} - {Kind.SOLVE}
            made = trainer.recycle(judged)
            assert all(task.origin is Origin.REFLECTION for task in made.tasks)
            trainer.update(judged)
            trainer.report()
        trainer.checkpoint()
    by_hand, trained = fingerprint(base / "by-hand"), fingerprint(finished)
    for name in ("problems", "tasks", "rollouts", "recycled", "exclusions"):
        assert by_hand["rows"][name] == trained["rows"][name]
    assert by_hand["tensors"] == trained["tensors"]  # evaluation does not disturb training


def test_a_phase_out_of_order_says_what_is_due(base: Path) -> None:
    with start_run(tiny_config(base), base / "order") as trainer:
        with pytest.raises(PhaseError, match=r"update was called, but in round 1 roll_out \(policy period\) is due"):
            trainer.update()
        groups = trainer.roll_out()
        with pytest.raises(PhaseError, match=r"between rounds: verify \(policy period\) is due"):
            trainer.evaluate()
        assert len(trainer.verify(groups)) == len(groups)


def stop_at(trainer: Trainer, count: int) -> None:
    """Ask for a stop at the count-th event."""
    seen = 0

    def listen(_event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            trainer.stop.ask()

    trainer.listeners.append(listen)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 9, 14, 20, 23, 26, 31, 40, 47, 66])
def test_a_stopped_run_goes_on_bit_for_bit(base: Path, finished: Path, tmp_path: Path, count: int) -> None:
    config = tiny_config(base)
    with start_run(config, tmp_path / "run") as trainer:
        stop_at(trainer, count)
        trainer.train()
        assert trainer.stopped
    with resume_run(tmp_path / "run") as trainer:
        trainer.train()
        assert not trainer.stopped
    assert fingerprint(tmp_path / "run") == fingerprint(finished)


@pytest.mark.slow
def test_stop_from_another_thread_then_another_run_in_this_process(base: Path, tmp_path: Path) -> None:
    with start_run(tiny_config(base, rounds=1000), tmp_path / "run") as trainer:
        timer = threading.Timer(0.5, trainer.stop.ask)
        timer.start()
        trainer.train()
        timer.join()
        assert 0 <= trainer.completed < 1000
        with pytest.raises(RunLockedError, match="being written by process"):
            resume_run(tmp_path / "run")
    with resume_run(tmp_path / "run") as again:
        before = again.completed
        again.train(rounds=1)
        assert again.completed == before + 1


@pytest.mark.slow
def test_going_back_and_on_again_gives_the_same_run(base: Path, finished: Path, tmp_path: Path) -> None:
    with start_run(tiny_config(base), tmp_path / "run") as trainer:
        trainer.train()
    for back_to in (3, 0):
        with go_back(tmp_path / "run", back_to) as trainer:
            assert trainer.completed == back_to
            assert trainer.policy_version == 2 * back_to
            trainer.train()
        assert fingerprint(tmp_path / "run") == fingerprint(finished)
    assert (tmp_path / "run" / "discarded").is_dir()
    with go_back(tmp_path / "run", 2) as trainer:
        trainer.train(rounds=1)
    with undo_back(tmp_path / "run") as trainer:  # the third round, made twice, moves aside for the first four
        assert trainer.completed == 4
        assert trainer.policy_version == 8
    assert fingerprint(tmp_path / "run") == fingerprint(finished)
    with pytest.raises(InputError, match="rounds 0 to 4"):
        go_back(tmp_path / "run", 9)


@pytest.mark.slow
def test_a_fork_goes_on_from_its_round(base: Path, finished: Path, tmp_path: Path) -> None:
    with fork_run(finished, 3, tmp_path / "same") as trainer:
        assert (trainer.completed, trainer.policy_version) == (3, 6)
        trainer.train()
    parent, fork = fingerprint(finished), fingerprint(tmp_path / "same")
    assert fork["tensors"] == parent["tensors"]
    assert fork["rows"]["rollouts"] == [row for row in parent["rows"]["rollouts"] if row["round"] == 4]
    with fork_run(finished, 3, tmp_path / "other", {"learner": {"learning_rate": 5e-3}}) as trainer:
        trainer.train(rounds=1)
    assert fingerprint(tmp_path / "other")["tensors"] != parent["tensors"]
    with resume_run(tmp_path / "other") as trainer:
        assert trainer.completed == 4
    with pytest.raises(InputError, match="keeps model and seed"):
        fork_run(finished, 3, tmp_path / "third", {"seed": 5})
    with pytest.raises(InputError, match="rounds 0 to 4"):
        fork_run(finished, 7, tmp_path / "third")


@pytest.mark.slow
def test_what_a_kill_left_undone_after_the_last_round_is_done_on_resume(
    base: Path, finished: Path, tmp_path: Path
) -> None:
    """All rounds are on disk, but not yet the evaluation and the checkpoint that follow the last one."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "evaluations" / "000004")
    shutil.rmtree(run / "checkpoints" / "000004")
    with resume_run(run) as trainer:
        assert trainer.train() == []
    assert fingerprint(run) == fingerprint(finished)
    assert RunReader(run).evaluations == [0, 4]
    with resume_run(run) as trainer:  # and not once more
        before = len(list(RunReader(run).events()))
        trainer.train()
        later = [event["event"] for event in list(RunReader(run).events())[before:]]
    assert later == ["run_started", "run_finished"]


@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_an_older_one(base: Path, finished: Path, tmp_path: Path) -> None:
    with start_run(tiny_config(base), tmp_path / "run") as trainer:
        trainer.train()
    newest = RunReader(tmp_path / "run").checkpoints[-1].path
    with (newest / "model.safetensors").open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff\xff")
    with resume_run(tmp_path / "run") as trainer:
        assert trainer.completed == 4
        trainer.checkpoint()
    assert fingerprint(tmp_path / "run")["tensors"] == fingerprint(finished)["tensors"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "periods"),
    [
        ({"period__order": "joint"}, [Period.JOINT]),
        ({"period__train_policy": False}, [Period.REWARD]),
        (
            {
                "period__train_reward": False,
                "recycle__pointwise": False,
                "recycle__pairwise": False,
                "recycle__reflection": False,
            },
            [Period.POLICY],
        ),
        ({"recycle__minimum": 1000, "recycle__max_age": None}, [Period.POLICY]),
    ],
    ids=["joint", "reward-only", "policy-only", "too few tasks"],
)
def test_other_arms_and_orders(base: Path, tmp_path: Path, overrides: dict[str, object], periods: list[Period]) -> None:
    config = tiny_config(base, evaluation__every=0, rounds=2, **overrides)
    with start_run(config, tmp_path / "run") as trainer:
        reports = trainer.train()
    for report in reports:
        assert [update.period for update in report.updates] == periods
        assert report.policy_version == report.round * len(periods)
    if "recycle__minimum" in overrides:
        assert "needed" in reports[0].notes[0]
    if overrides.get("period__order") == "joint":
        rows = RunReader(tmp_path / "run").table("rollouts").to_pylist()
        assert {row["policy_version"] for row in rows if row["round"] == 2} == {1}


def test_bad_input_is_refused_before_a_folder_is_made(base: Path, finished: Path, tmp_path: Path) -> None:
    cases = {
        "more problems than there are": {"problems__per_round": 1000},
        "no model": {"model__path": "nowhere/at/all"},
        r"max_prompt_tokens = 20": {"rollout__max_prompt_tokens": 20},
        r"max_new_tokens = 4000 leaves no room for a prompt": {"rollout__max_new_tokens": 4000},
        r"max_new_tokens = 2040 it does not fit the model's context of 2048": {"rollout__max_new_tokens": 2040},
        r"does not fit the model's context of": {
            "rollout__max_new_tokens": 2040,
            "problems": {"source": "arithmetic", "options": {}, "per_round": 2},
        },
        'problem source "nosuch"': {"problems__source": "nosuch"},
    }
    for message, overrides in cases.items():
        with pytest.raises(InputError, match=message):
            start_run(tiny_config(base, **overrides), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(RunFolderError, match="holds a run already"):
        start_run(tiny_config(base), finished)


def test_a_gold_that_hangs_its_verifier_is_named_before_training(base: Path, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    golds = ["1", "2", "3", "hang", "5", "6", "7", "8"]
    problems.write_text("".join(json.dumps({"id": f"p{g}", "q": f"Say {g}.", "a": g}) + "\n" for g in golds))
    options = {
        "path": str(problems),
        "columns": {"question": "q", "gold": "a", "id": "id"},
        "verifier": "tests.helpers.verify:Scripted",
    }
    config = tiny_config(base, problems={"source": "files", "options": options, "per_round": 2})
    config = config.model_copy(update={"verify": config.verify.model_copy(update={"deadline_seconds": 0.5})})
    with pytest.raises(ProblemError, match=r"problems\.jsonl:4.*phang.*deadline"):
        start_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_pause_ends_with_the_phase_and_training_goes_on_bit_for_bit(
    base: Path, finished: Path, tmp_path: Path
) -> None:
    with start_run(tiny_config(base), tmp_path / "run") as trainer:

        def pause_in_verify(event: Event) -> None:
            if event.name == "phase_started" and event.phase == "verify" and event.round == 2:
                trainer.pause.ask()

        trainer.listeners.append(pause_in_verify)
        trainer.train()
        assert trainer.stopped
        assert (trainer.state.flight.round, str(trainer.due)) == (2, "recycle (policy period)")
        trainer.listeners.remove(pause_in_verify)
        trainer.train()
        assert not trainer.stopped
    assert fingerprint(tmp_path / "run") == fingerprint(finished)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["roll_out", "update", "evaluate"])
def test_an_interrupt_stops_a_blocking_train_at_a_safe_point(
    base: Path, finished: Path, tmp_path: Path, phase: str
) -> None:
    with start_run(tiny_config(base), tmp_path / "run") as trainer:
        sent: list[Event] = []

        def interrupt(event: Event) -> None:
            if event.name == "progress" and (event.phase or "").startswith(phase) and not sent:
                sent.append(event)
                signal.raise_signal(signal.SIGINT)

        trainer.listeners.append(interrupt)
        before = signal.getsignal(signal.SIGINT)
        trainer.train()
        assert trainer.stopped
        assert sent
        assert signal.getsignal(signal.SIGINT) is before
        trainer.train()
    assert fingerprint(tmp_path / "run") == fingerprint(finished)
