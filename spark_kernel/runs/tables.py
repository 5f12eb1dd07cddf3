"""Records as Arrow tables and back, exactly: token ids, log-probabilities, rewards and advantages keep every bit.

Rows stand in the order of the records, so that an update can be repeated from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from spark_kernel.errors import InputError, NonFiniteError, RunFolderError
from spark_kernel.records import (
    Exclusion,
    ExclusionReason,
    Group,
    ImagePart,
    ImageRef,
    Kind,
    Message,
    Origin,
    Parse,
    Problem,
    Rollout,
    Score,
    Task,
    TextPart,
    View,
)
from spark_kernel.runs.codec import decode_plain, dumps, encode_plain, loads
from spark_kernel.runs.schemas import SCHEMAS

Row = dict[str, Any]


def problems_table(round: int, problems: Iterable[Problem], name: str = "problems") -> pa.Table:
    """One row per problem."""
    rows = [
        {
            "round": round,
            "id": problem.id,
            "question": problem.question,
            "gold": problem.gold,
            "verifier": problem.verifier,
            "images": _image_rows(problem.images, problem.id),
            "meta": dumps(encode_plain(problem.meta, f"meta of problem {problem.id}")),
        }
        for problem in problems
    ]
    return _table(name, rows)


def read_problems(table: pa.Table) -> tuple[Problem, ...]:
    """The problems of a table, in its order."""
    return tuple(
        Problem(
            row["id"],
            row["question"],
            row["gold"],
            row["verifier"],
            _read_images(row["images"]),
            decode_plain(loads(row["meta"], f"meta of problem {row['id']}")),
        )
        for row in table.to_pylist()
    )


def task_list_table(name: str, round: int, tasks: Iterable[Task]) -> pa.Table:
    """One row per task that is not in a group yet: "recycled" or "planned"."""
    return _table(name, [{"round": round} | _task_row(task) for task in tasks])


def read_task_list(table: pa.Table) -> tuple[Task, ...]:
    """The tasks of a "recycled" or "planned" table, in its order."""
    return tuple(_read_task(row) for row in table.to_pylist())


def group_tables(round: int, groups: Mapping[Any, Sequence[Group]], prefix: str = "") -> tuple[pa.Table, pa.Table]:
    """Sampled tasks and their rollouts; the mapping's keys are periods, or with prefix "eval_" parts.

    Raises:
        NonFiniteError: a reward, advantage, log-probability or time that is NaN or infinite; names the rollout.
        InputError: a rollout under a task that is not its own.
    """
    column = "part" if prefix else "period"
    tasks: list[Row] = []
    rollouts: list[Row] = []
    for key, members in groups.items():
        for index, group in enumerate(members):
            place = {"round": round, column: str(key), "group_index": index}
            tasks.append(place | _task_row(group.task))
            rollouts += [place | _rollout_row(rollout, group.task) for rollout in group.rollouts]
    return _table(prefix + "tasks", tasks), _table(prefix + "rollouts", rollouts)


def read_groups(tasks: pa.Table, rollouts: pa.Table) -> dict[str, tuple[Group, ...]]:
    """The groups of two tables, by period or part, in their order.

    Raises:
        RunFolderError: a rollout without its task.
    """
    column = "part" if "part" in tasks.column_names else "period"
    members: dict[tuple[str, int], list[Rollout]] = {}
    owners: dict[tuple[str, int], Task] = {}
    for row in tasks.to_pylist():
        key = (row[column], row["group_index"])
        owners[key], members[key] = _read_task(row), []
    for row in rollouts.to_pylist():
        key = (row[column], row["group_index"])
        if key not in owners or owners[key].id != row["task_id"]:
            raise RunFolderError(f"Rollout {row['id']} of round {row['round']} has no task {row['task_id']} beside it.")
        members[key].append(_read_rollout(row))
    groups: dict[str, list[Group]] = {}
    for key, task in owners.items():
        groups.setdefault(key[0], []).append(Group(task, tuple(members[key])))
    return {name: tuple(list_) for name, list_ in groups.items()}


def exclusions_table(round: int, exclusions: Iterable[Exclusion], name: str = "exclusions") -> pa.Table:
    """One row per exclusion.

    Raises:
        InputError: an exclusion of another round.
    """
    rows = []
    for item in exclusions:
        if item.round != round:
            raise InputError(
                f"The exclusion of {item.subject_id} ({item.stage}/{item.reason}) belongs to round {item.round} and "
                f"cannot be recorded in round {round}."
            )
        rows.append(
            {
                "round": round,
                "stage": item.stage,
                "reason": str(item.reason),
                "subject_id": item.subject_id,
                "kind": _optional(item.kind),
                "detail": item.detail,
            }
        )
    return _table(name, rows)


def read_exclusions(table: pa.Table) -> tuple[Exclusion, ...]:
    """The exclusions of a table, in its order."""
    return tuple(
        Exclusion(
            row["round"],
            row["stage"],
            ExclusionReason(row["reason"]),
            row["subject_id"],
            Kind(row["kind"]) if row["kind"] is not None else None,
            row["detail"],
        )
        for row in table.to_pylist()
    )


def _table(name: str, rows: list[Row]) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=SCHEMAS[name])
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError) as error:
        raise InputError(f'These records do not fit the table "{name}": {error}.') from error


def _task_row(task: Task) -> Row:
    return {
        "id": task.id,
        "kind": str(task.kind),
        "origin": str(task.origin),
        "problem_id": task.problem_id,
        "messages": [{"role": m.role, "parts": [_part_row(part) for part in m.parts]} for m in task.messages],
        "label": task.label,
        "verifier": task.verifier,
        "template_id": task.template_id,
        "made_round": task.round,
        "images": _image_rows(task.images, task.id),
        "view": _optional(task.view),
        "sources": list(task.sources),
        "source_policy_version": task.source_policy_version,
        "source_correct": list(task.source_correct),
        "source_group_mixed": task.source_group_mixed,
        "gold_position": task.gold_position,
        "label_map": None if task.label_map is None else list(task.label_map.items()),
    }


def _read_task(row: Row) -> Task:
    return Task(
        id=row["id"],
        kind=Kind(row["kind"]),
        origin=Origin(row["origin"]),
        problem_id=row["problem_id"],
        messages=tuple(Message(m["role"], tuple(_read_part(part) for part in m["parts"])) for m in row["messages"]),
        label=row["label"],
        verifier=row["verifier"],
        template_id=row["template_id"],
        round=row["made_round"],
        images=_read_images(row["images"]),
        view=View(row["view"]) if row["view"] is not None else None,
        sources=tuple(row["sources"]),
        source_policy_version=row["source_policy_version"],
        source_correct=tuple(row["source_correct"]),
        source_group_mixed=row["source_group_mixed"],
        gold_position=row["gold_position"],
        label_map=None if row["label_map"] is None else dict(row["label_map"]),
    )


def _rollout_row(rollout: Rollout, task: Task) -> Row:
    if rollout.task_id != task.id:
        raise InputError(f"Rollout {rollout.id} stands under task {task.id} but says that it belongs to another one.")
    if len(rollout.logprobs) != len(rollout.token_ids):
        raise InputError(
            f"Rollout {rollout.id} has {len(rollout.token_ids)} tokens but {len(rollout.logprobs)} log-probabilities."
        )
    score = rollout.score
    for name, value in (
        ("reward", score.reward if score else None),
        ("advantage", rollout.advantage),
        ("time", rollout.seconds),
        *(("log-probability", value) for value in rollout.logprobs),
    ):
        if value is not None and not math.isfinite(value):
            raise NonFiniteError(f"Rollout {rollout.id} (task {task.id}) has a {name} of {value}: it is not recorded.")
    return {
        "sample": rollout.index,
        "id": rollout.id,
        "task_id": rollout.task_id,
        "problem_id": task.problem_id,
        "kind": str(task.kind),
        "origin": str(task.origin),
        "policy_version": rollout.policy_version,
        "token_ids": list(rollout.token_ids),
        "logprobs": list(rollout.logprobs),
        "text": rollout.text,
        "truncated": rollout.truncated,
        "seconds": rollout.seconds,
        "parse": str(score.parse) if score else None,
        "reward": score.reward if score else None,
        "correct": score.correct if score else None,
        "answer": score.answer if score else None,
        "reason": score.reason if score else None,
        "advantage": rollout.advantage,
    }


def _read_rollout(row: Row) -> Rollout:
    score = None
    if row["parse"] is not None:
        score = Score(row["reward"], row["correct"], Parse(row["parse"]), row["answer"], row["reason"])
    return Rollout(
        id=row["id"],
        task_id=row["task_id"],
        index=row["sample"],
        policy_version=row["policy_version"],
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        text=row["text"],
        truncated=row["truncated"],
        seconds=row["seconds"],
        score=score,
        advantage=row["advantage"],
    )


def _part_row(part: TextPart | ImagePart) -> Row:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text, "image": None}
    return {"type": "image", "text": None, "image": part.index}


def _read_part(row: Row) -> TextPart | ImagePart:
    return TextPart(row["text"]) if row["type"] == "text" else ImagePart(row["image"])


def _image_rows(images: Iterable[ImageRef], owner: str) -> list[Row]:
    for image in images:
        path = PurePosixPath(image.path)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"The image {image.path} of {owner} lies outside the run: store it there first (problems.images)."
            )
    return [{"sha256": image.sha256, "path": image.path} for image in images]


def _read_images(rows: list[Row]) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(row["sha256"], row["path"]) for row in rows)


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)
