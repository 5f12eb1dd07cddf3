"""Problems from files and hub data sets: JSON Lines, JSON, CSV, TSV, Parquet; in the formats they are published in.

All records are read once, when the source is made: their texts stay in memory, their images on disk. A record that
cannot be used keeps its place and raises its `ProblemError` whenever it is asked for; an empty line and a repeated
record are left out and counted (`skipped`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Literal

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.keyed_random import content_hash
from spark_kernel.problems.formats.choose import AUTO, LOOKED_AT, check_format, choose_layout
from spark_kernel.problems.held_out import FIRST_FORM, canonical_text
from spark_kernel.problems.hub import read_hub
from spark_kernel.problems.image_fields import ImageReader
from spark_kernel.problems.images import MAX_PIXELS
from spark_kernel.problems.record_reader import RecordReader, check_columns
from spark_kernel.problems.rows import Row, Rows, Skipped
from spark_kernel.problems.tables import read_rows
from spark_kernel.records import ExclusionReason, Problem

HUB = "hub:"


class FilesSource:
    """The problems of one or more files, or of a hub data set, in file order.

    `skipped`: empty lines and repeated records, which have no index. `recognised`: a sentence about the format.

    Args:
        path: a problem file, several of them, or "hub:owner/name".
        dataset: a hub data set "owner/name", instead of path.
        subset, split, revision: which part of the hub data set.
        format: the published format of the records; auto: recognised by their fields.
        columns: our name (question, message, gold, id, images, choices, verifier) to the record's field, by dotted path
            where it lies inside an object; choices may be a list of fields.
        verifier: the verifier of every problem; none: the record's own, else "choice" for problems with choices and
            "math" for others.
        answer_format: "auto" sets known answer-format sentences apart from the question, "keep" leaves them in it.
        gold_pattern: a regular expression whose group 1 is the gold in a gold's text.
        gold_index: 0 or 1 where golds are indices of choices written as text, counted from there.
        image_root: images given by path must lie in this folder; none: the problem file's own folder.
        image_cache: folder for images given as bytes; none: a folder of this user under the temporary directory.
        max_pixels: the most pixels an image may have.

    Raises:
        InputError: a file or option that cannot be used as a whole, or fields that fit several formats.
    """

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        dataset: str | None = None,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        format: str = AUTO,
        columns: dict[str, str | list[str]] | None = None,
        verifier: str | None = None,
        answer_format: Literal["auto", "keep"] = "auto",
        gold_pattern: str | None = None,
        gold_index: Literal[0, 1] | None = None,
        image_root: str | None = None,
        image_cache: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        files, dataset = _which(path, dataset)
        check_format(format)
        check_columns(columns or {})
        pattern = _compiled(gold_pattern)
        images = ImageReader(
            root=Path(image_root) if image_root else files[0].parent if files else None,
            cache=Path(image_cache) if image_cache else None,
            max_pixels=max_pixels,
        )
        rows: Rows = (
            read_hub(dataset, subset=subset, split=split, revision=revision)
            if dataset
            else chain.from_iterable(read_rows(file) for file in files)
        )
        rows, first = _peeked(rows)
        chosen = choose_layout(format, [row.values for row in first], columns or {})
        reader = RecordReader(
            layout=chosen.layout,
            columns=columns or {},
            verifier=verifier,
            images=images,
            keep_answer_format=answer_format == "keep",
            gold_pattern=pattern,
            gold_index=gold_index,
        )
        self.recognised = chosen.said
        self._problems, self.skipped = _read_all(rows, reader)
        if not self._problems:
            raise InputError(f"{dataset or ', '.join(map(str, files))} holds no problems.")
        self.size: int | None = len(self._problems)

    def problem(self, index: int) -> Problem:
        """The problem at an index.

        Raises:
            ProblemError: the record at this index is malformed; says file, line and reason.
            IndexError: the index is not below `size`.
        """
        if not 0 <= index < len(self._problems):
            raise IndexError(f"problem {index} of {len(self._problems)}")
        found = self._problems[index]
        if isinstance(found, ProblemError):
            raise ProblemError(*found.args)
        return found


def _which(path: str | list[str] | None, dataset: str | None) -> tuple[list[Path], str | None]:
    if isinstance(path, str) and path.startswith(HUB) and dataset is None:
        dataset, path = path.removeprefix(HUB), None
    if (path is None) == (dataset is None):
        raise InputError(
            "The files source needs either problems.options.path (a file, a list of files, or hub:owner/name) or "
            "problems.options.dataset (owner/name on the hub)."
        )
    files = [Path(path)] if isinstance(path, str) else [Path(name) for name in path or []]
    if dataset is None and not files:
        raise InputError("problems.options.path = [] is refused: name at least one problem file.")
    return files, dataset


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise InputError(f"problems.options.gold_pattern = {pattern!r} is no regular expression: {error}.") from None
    if compiled.groups > 1:
        raise InputError(f"problems.options.gold_pattern = {pattern!r} has {compiled.groups} groups: one at most.")
    return compiled


def _peeked(rows: Rows) -> tuple[Rows, list[Row]]:
    """The rows again, and the first records among them."""
    held: list[Row | ProblemError | Skipped] = []
    first: list[Row] = []
    for row in rows:
        held.append(row)
        if isinstance(row, Row):
            first.append(row)
        if len(first) == LOOKED_AT:
            break
    return chain(held, rows), first


def _read_all(rows: Rows, reader: RecordReader) -> tuple[list[Problem | ProblemError], tuple[Skipped, ...]]:
    problems: list[Problem | ProblemError] = []
    skipped: list[Skipped] = []
    seen: dict[str, tuple[str, Problem]] = {}
    for row in rows:
        found = _read_one(row, reader, seen) if isinstance(row, Row) else row
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            problems.append(found)
    return problems, tuple(skipped)


def _read_one(row: Row, reader: RecordReader, seen: dict[str, tuple[str, Problem]]) -> Problem | ProblemError | Skipped:
    """The problem of a row, or what is wrong with it; `seen` has each id's place and problem, and learns."""
    try:
        problem = reader.read(row)
    except (ValueError, InputError) as error:
        return ProblemError(f"{row.place}: {str(error).rstrip('.')}.")
    # Ids are written into runs: they stay those of the first form.
    text = canonical_text(problem, FIRST_FORM)
    identity = problem.id or f"q-{content_hash(text, length=16)}"
    if identity in seen:
        place, before = seen[identity]
        if canonical_text(before, FIRST_FORM) == text and before.gold == problem.gold:
            return Skipped(row.place, ExclusionReason.REPEATED, f"the same problem as {place}")
        what = f'the id "{identity}"' if problem.id else "a problem with the same question and images"
        return ProblemError(
            f"{row.place}: {what} was given before, at {place}, with {_difference(before, problem, text)}."
        )
    meta: Mapping[str, object] = {**problem.meta, "record": row.place}
    problem = Problem(identity, problem.question, problem.gold, problem.verifier, problem.images, meta)
    seen[identity] = (row.place, problem)
    return problem


def _difference(before: Problem, now: Problem, text: str) -> str:
    if canonical_text(before, FIRST_FORM) != text:
        return "another question"
    return f'the gold "{before.gold[:40]}" where this one has "{now.gold[:40]}"'
