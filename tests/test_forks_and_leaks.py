"""Held-out problems that were trained on are refused; forks with other settings do what these say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spark_kernel.errors import InputError
from spark_kernel.evaluate.leaks import trained_problems
from spark_kernel.problems.held_out import CANONICAL_FORM, held_out_position
from spark_kernel.records import ExclusionReason, Problem
from spark_kernel.runs.reader import RunReader
from spark_kernel.training import lifecycle
from spark_kernel.training.lifecycle import fork_run, start_run
from tests.helpers.runs import fingerprint, tiny_config
from workbench.cli import main

pytestmark = pytest.mark.slow
RE_EVALUATIONS = {("pointwise", "reflection"), ("pairwise", "reflection")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forks")


@pytest.fixture(scope="module")
def run(base: Path) -> Path:
    """Three rounds of 6 of about 32 problems, with checkpoints after 0, 2 and 3 and an evaluation of 6."""
    config = tiny_config(base, rounds=3, evaluation__every=3, evaluation__problems=6, evaluation__samples=8)
    with start_run(config, base / "run") as trainer:
        trainer.train()
    return base / "run"


def other_problems(path: Path, first: int = 100, count: int = 40, ids: str = "p") -> dict[str, object]:
    """Other questions, under the ids of the first file."""
    rows = [{"question": f"What is number {first + i}?", "gold": str(i), "id": f"{ids}{i}"} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return {"problems": {"options": {"path": str(path)}}}


def trained_ids(run: Path) -> set[str]:
    return {row["id"] for row in RunReader(run).table("problems").to_pylist()}


def test_eval_refuses_a_larger_share_that_reaches_into_what_was_trained_on(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spark_kernel.evaluate import parts

    monkeypatch.setattr(parts, "load_policy", lambda *_, **__: pytest.fail("the model was loaded"))
    flags = ["--problems.held_out_fraction", "0.7", "--evaluation.problems", "40"]
    assert main(["eval", str(run), *flags]) == 2
    said = capsys.readouterr().err
    positions = {
        name: held_out_position(Problem(name, f"What is number {name[1:]}?", "", ""), CANONICAL_FORM)
        for name in trained_ids(run)
    }
    leaked = {name for name, position in positions.items() if position < 0.7}
    assert len(leaked) > 5
    assert f"{len(leaked)} of " in said.replace("\n", " ")
    assert all(f"{name} (What is number" in " ".join(said.split()) for name in leaked)


def test_eval_at_an_earlier_round_counts_what_was_trained_on_until_then(run: Path) -> None:
    early, late = trained_problems(run, 1), trained_problems(run, 3)
    assert len(early.problems) == 6
    assert early.problems.keys() < late.problems.keys()
    assert early.complete


def test_a_fork_refuses_them_too_also_what_its_grandparents_trained_on(run: Path, tmp_path: Path) -> None:
    larger = {"problems": {"held_out_fraction": 0.7, "per_round": 2}, "evaluation": {"problems": 40}}
    with pytest.raises(InputError, match=r"held-out problems were trained on by .*run up to round 3"):
        fork_run(run, None, tmp_path / "no", larger)
    assert not (tmp_path / "no").exists()
    with fork_run(run, None, tmp_path / "child", {"rounds": 3}):
        pass
    child = trained_problems(tmp_path / "child", 3)
    assert child.complete
    assert {p.id for p in child.problems.values()} == trained_ids(run)
    with pytest.raises(InputError, match="held-out problems were trained on"):
        fork_run(tmp_path / "child", None, tmp_path / "grandchild", larger)
    shutil.rmtree(tmp_path / "child" / "inherited" / "trained")  # as an older version left it
    with pytest.raises(InputError, match="goes on from a run whose problems are not on record"):
        fork_run(tmp_path / "child", None, tmp_path / "grandchild", larger)
    assert main(["eval", str(tmp_path / "child"), "--problems.held_out_fraction", "0.3"]) == 2


def test_a_fork_without_evaluation_may_hold_out_what_it_likes(run: Path, tmp_path: Path) -> None:
    changed = {"problems": {"held_out_fraction": 0.7, "per_round": 2}, "evaluation": {"every": 0}, "rounds": 3}
    with fork_run(run, None, tmp_path / "fork", changed) as trainer:
        waiting = trainer.state.queue.tasks
        problems = {p.id: p for p in trained_problems(run, 3).problems.values()}
        assert all(held_out_position(problems[task.problem_id]) >= 0.7 for task in waiting)
        dropped = [e for e in trainer.state.flight.exclusions if e.reason is ExclusionReason.HELD_OUT]
        assert dropped


@pytest.mark.parametrize("at", [2, 3])
def test_a_curriculum_by_fork_works(run: Path, tmp_path: Path, at: int) -> None:
    """With other problems, under the same ids, from a round with a checkpoint and from one without."""
    source = run
    if at == 3:  # after the third round there is no checkpoint any more: it is repeated, with the parent's problems
        source = tmp_path / "source"
        shutil.copytree(run, source)
        shutil.rmtree(source / "checkpoints" / "000003")
    waiting = {task.id for task in _state(run, at).queue.tasks}
    changed = other_problems(tmp_path / "harder.jsonl") | {"rounds": at + 2, "learner": {"learning_rate": 5e-2}}
    with fork_run(source, at, tmp_path / "fork", changed) as trainer:
        assert trainer.completed == at
        assert trainer.state.queue.tasks == ()
        before = trainer.parts.learner.policy.score([_prompt()], [[(5, 6, 7)]])
        trainer.train()
    with fork_run(run, at, tmp_path / "same", {"rounds": at}) as untouched:
        assert (
            untouched.parts.learner.policy.score([_prompt()], [[(5, 6, 7)]]) == before
        )  # the parent's rate, not the fork's
    reader = RunReader(tmp_path / "fork")
    rows = reader.table("problems", [at + 1]).to_pylist()
    assert all(int(row["question"].split()[-1].rstrip("?")) >= 100 for row in rows)
    excluded = reader.table("exclusions", [at + 1]).to_pylist()
    assert {r["subject_id"] for r in excluded if r["reason"] == "other_problems"} == waiting != set()
    first, *later = reader.evaluations
    assert not any(line.startswith("frozen/") for line in reader.evaluation(first)["lines"])
    assert later
    assert any(line.startswith("frozen/") for line in reader.evaluation(later[-1])["lines"])


def test_a_fork_that_evaluates_fewer_problems_keeps_what_of_the_pool_is_evaluated(run: Path, tmp_path: Path) -> None:
    with fork_run(run, None, tmp_path / "fork", {"evaluation": {"problems": 3, "every": 1}, "rounds": 4}) as trainer:
        heard: list[str] = []
        trainer.listeners.append(lambda e: heard.append(str(e.data.get("text", ""))) if e.name == "remark" else None)
        trainer.train()
    reader = RunReader(tmp_path / "fork")
    asked = {row["problem_id"] for row in reader.table("eval_tasks", [4]).to_pylist()}
    assert len(asked) == 3
    assert any(line.startswith("frozen/") for line in reader.evaluation(4)["lines"])
    assert any("The frozen lines hold 3 of the" in text for text in heard)
    assert main(["eval", str(tmp_path / "fork"), "--round", "4", "--out", str(tmp_path / "again")]) == 0
    assert RunReader(tmp_path / "again").evaluation(4) == reader.evaluation(4)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"recycle": {"reflection": False, "re_evaluation": False}}, {("reflection", "solve"), *RE_EVALUATIONS}),
        ({"recycle": {"re_evaluation": False}}, RE_EVALUATIONS),
        ({"period": {"train_reward": False}}, None),
    ],
)
def test_kinds_that_are_switched_off_leave_the_queue(
    run: Path, tmp_path: Path, changes: dict[str, object], gone: set[tuple[str, str]] | None
) -> None:
    before = _state(run, 3).queue.tasks
    unwanted = {t.id for t in before if gone is None or (str(t.kind), str(t.origin)) in gone}
    with fork_run(run, None, tmp_path / "fork", changes | {"rounds": 4, "evaluation": {"every": 0}}) as trainer:
        assert {task.id for task in trainer.state.queue.tasks} == {task.id for task in before} - unwanted
        trainer.train()
    rows = RunReader(tmp_path / "fork").table("exclusions", [4]).to_pylist()
    left_out = {r["subject_id"] for r in rows if r["stage"] == "queue" and r["reason"] == "kind_off"}
    assert left_out == unwanted


def test_a_fork_without_changes_is_as_before(run: Path, tmp_path: Path) -> None:
    with fork_run(run, 2, tmp_path / "fork", {}) as trainer:
        trainer.train()
    one, two = fingerprint(run), fingerprint(tmp_path / "fork")
    assert one["tensors"] == two["tensors"]
    assert one["state"]["learner.json"] == two["state"]["learner.json"]


def test_weights_that_would_not_move_are_refused_at_start_and_fork(base: Path, run: Path, tmp_path: Path) -> None:
    still = {"model__dtype": "bfloat16", "learner__learning_rate": 5e-7}
    with pytest.raises(InputError, match=r"neighbouring bfloat16 values are 0.00012 apart.*rounded away"):
        start_run(tiny_config(base, **still), tmp_path / "run")
    config = tiny_config(base, model__dtype="bfloat16", learner__learning_rate=1e-3, rounds=1, evaluation__every=0)
    with start_run(config, tmp_path / "moving") as trainer:
        trainer.train()
    with pytest.raises(InputError, match="rounded away"):
        fork_run(tmp_path / "moving", None, tmp_path / "fork", {"learner": {"learning_rate": 1e-6}})


def _prompt():  # type: ignore[no-untyped-def]
    from spark_kernel.prompts.prompt import Prompt
    from spark_kernel.records import Message

    return Prompt("t", (Message.of("user", "What?"),), ())


def _state(run: Path, at: int):  # type: ignore[no-untyped-def]
    from spark_kernel.runs.checkpoints import find_checkpoint

    found = find_checkpoint(run, at)
    assert found is not None
    return lifecycle._stored_state(found)
