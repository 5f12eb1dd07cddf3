"""Requests and results as lines of JSON, between the pool and its workers. No pickle: results come from processes
that handled untrusted text.

Problems and tasks travel once per chunk however many outputs they have, written by the codec of all records
(`runs.codec`). Tuples in `meta` arrive as lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.records import Parse, Problem, Score, Task
from spark_kernel.runs.codec import from_json, to_json
from spark_kernel.verify.verifier import VerifyRequest


def encode_requests(requests: Sequence[VerifyRequest], correct_threshold: float) -> bytes:
    """One line that asks a worker to score these outputs.

    Raises:
        InputError: a problem or task that cannot be written, as with a meta that holds no JSON values; names it.
    """
    problems, tasks = _Table(), _Table()
    items = [[request.output, problems.index(request.problem), tasks.index(request.task)] for request in requests]
    return _line(
        {
            "operation": "score",
            "threshold": correct_threshold,
            "problems": problems.rows,
            "tasks": tasks.rows,
            "items": items,
        }
    )


def encode_problems(problems: Iterable[Problem]) -> bytes:
    """One line that asks a worker to check the golds of these problems.

    Raises:
        InputError: a problem that cannot be written; names it.
    """
    return _line({"operation": "check", "problems": [_written(problem) for problem in problems]})


def decode_requests(message: dict[str, Any]) -> list[VerifyRequest]:
    """The requests of a "score" line."""
    problems = decode_problems(message)
    tasks = [from_json(Task, row) for row in message["tasks"]]
    return [VerifyRequest(output, problems[p], tasks[t]) for output, p, t in message["items"]]


def decode_problems(message: dict[str, Any]) -> list[Problem]:
    """The problems of a "score" or "check" line."""
    return [from_json(Problem, row) for row in message["problems"]]


def score_out(score: Score) -> list[Any]:
    """A score as JSON values.

    By hand, for there is one per output, and an answer may be any text of a verifier: what a record cannot hold, such
    as half of a surrogate pair, is refused when it is recorded and is no crash of the verifier.
    """
    return [score.reward, score.correct, score.parse.value, score.answer, score.reason]


def score_in(row: Sequence[Any]) -> Score:
    """The score that `score_out` wrote."""
    reward, correct, parse, answer, reason = row
    return Score(reward, correct, Parse(parse), answer, reason)


class _Table:
    """Rows, each written once for all who refer to the same object."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._places: dict[int, int] = {}

    def index(self, record: Problem | Task) -> int:
        place = self._places.get(id(record))
        if place is None:
            place = self._places[id(record)] = len(self.rows)
            self.rows.append(_written(record))
        return place


def _written(record: Problem | Task) -> dict[str, Any]:
    try:
        row: dict[str, Any] = to_json(record)
    except InputError as error:
        raise InputError(f"{type(record).__name__} {record.id}: {error}") from error
    return row


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
