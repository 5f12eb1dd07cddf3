"""What became of a round's outputs: the tasks made of them, and where each task went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from spark_kernel.errors import RunFolderError
from workbench.views.fates import Fates, rounds_from
from workbench.views.round_tables import RoundTables, TableCache
from workbench.views.task_rows import ImageView, image_views, label_letters, prompt_messages, source_position


@dataclass(frozen=True, slots=True)
class RecycledRow:
    """A task that was made in a round, and its fate.

    `fate`: "sampled", "excluded" or "waiting", as far as the rounds looked at tell; `fate_round`: when; `reason`: of an
    exclusion, as "stage/reason". `outputs`, `right`: counts once it was sampled (right: scored as correct).
    """

    id: str
    kind: str
    origin: str
    made_round: int
    problem_id: str
    label: str
    view: str | None
    template_id: str
    sources: tuple[str, ...]
    source_correct: tuple[bool, ...]
    from_mixed_group: bool | None
    fate: str
    fate_round: int | None
    reason: str
    outputs: int
    right: int


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """An output that a prompt shows. `position`: "A" or "B" in a pair, else empty; `text` None where the run no longer
    holds the output (a fork's parent may have it).
    """

    id: str
    position: str
    answer: str | None
    correct: bool | None
    text: str | None
    policy_version: int | None


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a recycled task. `in_update`: whether the update used it; `left_out`: why not, else empty."""

    id: str
    sample: int
    answer: str | None
    correct: bool | None
    reward: float | None
    advantage: float | None
    parse: str | None
    text: str
    in_update: bool | None
    left_out: str


@dataclass(frozen=True, slots=True)
class AnswersAt:
    """What the policy answered to the problem with the weights of one version: `n` scored outputs, of which `right`;
    `commonest` answer. `kind`: solve, or reflection (it saw an earlier answer).
    """

    policy_version: int
    round: int
    kind: str
    n: int
    right: int
    commonest: str | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """A recycled task from its sources to the update.

    `messages`: the exact prompt. `label_map`: what each letter means, where the prompt asks for letters. `order`:
    pairwise, where the correct candidate stands. `answers`: solve and reflection outputs about the same problem in the
    rounds looked at, by policy version, so that what was answered before and after an update stands side by side.
    `update`: the period's update the outputs went into (loss, KL, ...), empty before it is done.
    """

    row: RecycledRow
    question: str
    gold: str
    images: tuple[ImageView, ...]
    messages: tuple[tuple[str, str], ...]
    label_map: Mapping[str, str] | None
    order: str | None
    source_policy_version: int | None
    sources: tuple[SourceAnswer, ...]
    outputs: tuple[Output, ...]
    answers: tuple[AnswersAt, ...]
    update: Mapping[str, float]


def recycled_rows(cache: TableCache, round: int, *, ahead: int = 3) -> tuple[RecycledRow, ...]:
    """The tasks made in a round, finished or in flight, and what became of them within `ahead` more rounds.

    Raises:
        RunFolderError: no such round.
    """
    seen = rounds_from(cache, round, ahead)
    fates = Fates(seen)
    return tuple(_row(task, fates) for task in seen[0].recycled.to_pylist())


def lineage(cache: TableCache, task_id: str, made_round: int, *, ahead: int = 3) -> Lineage:
    """A recycled task from its sources to the update.

    Raises:
        RunFolderError: the round did not make this task.
    """
    seen = rounds_from(cache, made_round, ahead)
    task = next((row for row in seen[0].recycled.to_pylist() if row["id"] == task_id), None)
    if task is None:
        raise RunFolderError(f"Round {made_round} of {cache.reader.info.name} made no task {task_id}.")
    row = _row(task, Fates(seen))
    earlier = [cache.round(r) for r in range(max(1, made_round - ahead), made_round) if cache.has(r)]
    problem = _find("problems", task["problem_id"], [*reversed(seen), *reversed(earlier)])
    return Lineage(
        row=row,
        question=problem["question"] if problem else "",
        gold=problem["gold"] if problem else "",
        images=image_views(cache.reader, task["images"]),
        messages=prompt_messages(task),
        label_map=label_letters(task),
        order=task["gold_position"],
        source_policy_version=task["source_policy_version"],
        sources=_sources(task, [seen[0], *reversed(earlier)]),
        outputs=_outputs(task_id, seen),
        answers=_answers(task["problem_id"], [*earlier, *seen]),
        update=_update(cache, row),
    )


def _row(task: Mapping[str, Any], fates: Fates) -> RecycledRow:
    fate, when, reason = fates.of(task["id"])
    return RecycledRow(
        id=task["id"],
        kind=task["kind"],
        origin=task["origin"],
        made_round=task["made_round"],
        problem_id=task["problem_id"],
        label=task["label"],
        view=task["view"],
        template_id=task["template_id"],
        sources=tuple(task["sources"]),
        source_correct=tuple(task["source_correct"]),
        from_mixed_group=task["source_group_mixed"],
        fate=fate,
        fate_round=when,
        reason=reason,
        outputs=fates.outputs[task["id"]],
        right=fates.right[task["id"]],
    )


def _sources(task: Mapping[str, Any], places: Sequence[RoundTables]) -> tuple[SourceAnswer, ...]:
    found = []
    for index, source in enumerate(task["sources"]):
        row = _find("rollouts", source, places)
        position = source_position(task, index)
        correct = task["source_correct"][index] if index < len(task["source_correct"]) else None
        if row is None:
            found.append(SourceAnswer(source, position, None, correct, None, task["source_policy_version"]))
        else:
            found.append(
                SourceAnswer(source, position, row["answer"], row["correct"], row["text"], row["policy_version"])
            )
    return tuple(found)


def _find(name: str, row_id: str, places: Sequence[RoundTables]) -> dict[str, Any] | None:
    for tables in places:
        found: list[dict[str, Any]] = getattr(tables, name).filter(pc.field("id") == row_id).to_pylist()
        if found:
            return found[0]
    return None


def _outputs(task_id: str, seen: Sequence[RoundTables]) -> tuple[Output, ...]:
    for tables in seen:
        rows = [row for row in tables.rollouts.to_pylist() if row["task_id"] == task_id]
        if not rows:
            continue
        left_out = {
            row["subject_id"]: row["reason"] for row in tables.exclusions.to_pylist() if row["stage"] == "update"
        }
        done = not tables.in_flight
        return tuple(
            Output(
                id=row["id"],
                sample=row["sample"],
                answer=row["answer"],
                correct=row["correct"],
                reward=row["reward"],
                advantage=row["advantage"],
                parse=row["parse"],
                text=row["text"],
                in_update=(row["id"] not in left_out and row["reward"] is not None) if done else None,
                left_out=left_out.get(row["id"], "no reward" if done and row["reward"] is None else ""),
            )
            for row in rows
        )
    return ()


def _answers(problem_id: str, places: Sequence[RoundTables]) -> tuple[AnswersAt, ...]:
    cells: dict[tuple[int, int, str], list[tuple[bool, str | None]]] = {}
    for tables in places:
        columns = ["problem_id", "kind", "policy_version", "correct", "answer"]
        for row in tables.rollouts.select(columns).to_pylist():
            if (
                row["problem_id"] == problem_id
                and row["kind"] in ("solve", "reflection")
                and row["correct"] is not None
            ):
                key = (row["policy_version"], tables.round, row["kind"])
                cells.setdefault(key, []).append((row["correct"], row["answer"]))
    return tuple(
        AnswersAt(version, round, kind, len(found), sum(right for right, _ in found), _commonest(found))
        for (version, round, kind), found in sorted(cells.items())
    )


def _commonest(found: Sequence[tuple[bool, str | None]]) -> str | None:
    answers = Counter(answer for _, answer in found if answer is not None)
    return answers.most_common(1)[0][0] if answers else None


def _update(cache: TableCache, row: RecycledRow) -> dict[str, float]:
    if row.fate != "sampled" or row.fate_round is None or row.fate_round not in cache.reader.rounds:
        return {}
    updates = cache.reader.report(row.fate_round).updates
    chosen = [update for update in updates if str(update.period) in ("reward", "joint")]
    if not chosen:
        return {}
    update = chosen[-1]
    figures = {
        "loss": update.loss,
        "kl": update.kl,
        "grad_norm": update.grad_norm,
        "optimizer_steps": float(update.optimizer_steps),
    }
    return figures | {f"{row.kind} {name}": value for name, value in update.by_kind.get(row.kind, {}).items()}
