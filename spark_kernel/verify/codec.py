"""Requests and results as lines of JSON, between the pool and its workers. No pickle: results come from processes
that handled untrusted text.

Problems and tasks travel once per chunk however many outputs they have. Tuples in `meta` arrive as lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.prompts.thinking import DEFAULT_TAGS, Tags
from spark_kernel.records import (
    ImagePart,
    ImageRef,
    Kind,
    Message,
    Origin,
    Parse,
    Problem,
    Score,
    Task,
    TextPart,
    View,
)
from spark_kernel.verify.verifier import VerifyRequest


def encode_requests(
    requests: Sequence[VerifyRequest], correct_threshold: float, thinking: Tags = DEFAULT_TAGS
) -> bytes:
    """One line that asks a worker to score these outputs; `thinking` are the tags of thinking.

    Raises:
        InputError: a problem's meta holds something that is no JSON value.
    """
    problems = _Table(_problem_out)
    tasks = _Table(_task_out)
    items = [[request.output, problems.index(request.problem), tasks.index(request.task)] for request in requests]
    return _line(
        {
            "operation": "score",
            "threshold": correct_threshold,
            "thinking": thinking,
            "problems": problems.rows,
            "tasks": tasks.rows,
            "items": items,
        }
    )


def encode_problems(problems: Iterable[Problem]) -> bytes:
    """One line that asks a worker to check the golds of these problems.

    Raises:
        InputError: a problem's meta holds something that is no JSON value.
    """
    return _line({"operation": "check", "problems": [_problem_out(problem) for problem in problems]})


def decode_requests(message: dict[str, Any]) -> list[VerifyRequest]:
    """The requests of a "score" line."""
    problems = [_problem_in(row) for row in message["problems"]]
    tasks = [_task_in(row) for row in message["tasks"]]
    return [VerifyRequest(output, problems[p], tasks[t]) for output, p, t in message["items"]]


def decode_problems(message: dict[str, Any]) -> list[Problem]:
    """The problems of a "check" line."""
    return [_problem_in(row) for row in message["problems"]]


def score_out(score: Score) -> list[Any]:
    """A score as JSON values."""
    return [score.reward, score.correct, score.parse.value, score.answer, score.reason]


def score_in(row: Sequence[Any]) -> Score:
    """The score that `score_out` wrote."""
    reward, correct, parse, answer, reason = row
    return Score(reward, correct, Parse(parse), answer, reason)


class _Table:
    """Rows, each written once for all who refer to the same object."""

    def __init__(self, write: Any) -> None:
        self.rows: list[dict[str, Any]] = []
        self._write = write
        self._places: dict[int, int] = {}

    def index(self, record: Any) -> int:
        place = self._places.get(id(record))
        if place is None:
            place = self._places[id(record)] = len(self.rows)
            self.rows.append(self._write(record))
        return place


def _line(message: dict[str, Any]) -> bytes:
    try:
        return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
    except (TypeError, ValueError) as error:
        bad = [row["id"] for row in message["problems"] if not _is_json(row)]
        raise InputError(f"Problem {', '.join(bad[:3])}: meta must hold JSON values only ({error}).") from error


def _is_json(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row)
    except (TypeError, ValueError):
        return False
    return True


def _problem_out(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem.id,
        "question": problem.question,
        "gold": problem.gold,
        "verifier": problem.verifier,
        "images": _images_out(problem.images),
        "meta": dict(problem.meta),
    }


def _problem_in(row: dict[str, Any]) -> Problem:
    return Problem(**(row | {"images": _images_in(row["images"])}))


def _task_out(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "kind": task.kind.value,
        "origin": task.origin.value,
        "problem_id": task.problem_id,
        "messages": [
            [message.role, [part.text if isinstance(part, TextPart) else part.index for part in message.parts]]
            for message in task.messages
        ],
        "label": task.label,
        "verifier": task.verifier,
        "template_id": task.template_id,
        "round": task.round,
        "images": _images_out(task.images),
        "view": task.view.value if task.view else None,
        "sources": task.sources,
        "source_policy_version": task.source_policy_version,
        "source_correct": task.source_correct,
        "source_group_mixed": task.source_group_mixed,
        "gold_position": task.gold_position,
        "label_map": dict(task.label_map) if task.label_map is not None else None,
    }


def _task_in(row: dict[str, Any]) -> Task:
    changed = {
        "kind": Kind(row["kind"]),
        "origin": Origin(row["origin"]),
        "messages": tuple(
            Message(role, tuple(TextPart(part) if isinstance(part, str) else ImagePart(part) for part in parts))
            for role, parts in row["messages"]
        ),
        "images": _images_in(row["images"]),
        "view": View(row["view"]) if row["view"] else None,
        "sources": tuple(row["sources"]),
        "source_correct": tuple(row["source_correct"]),
    }
    return Task(**(row | changed))


def _images_out(images: Iterable[ImageRef]) -> list[list[str]]:
    return [[image.sha256, image.path] for image in images]


def _images_in(rows: Iterable[Sequence[str]]) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(sha256, path) for sha256, path in rows)
