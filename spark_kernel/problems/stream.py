"""Which problems a round trains on: a walk over a source from a cursor, without held-out, bad or repeated problems.

The cursor is an int: the number of positions walked so far. A walk depends on source, seed and cursor only, so a run
that is resumed at a cursor goes on with the problems it would have taken.

A finite source is walked in epochs, each a permutation of its trainable problems keyed by (seed, epoch). It is read
whole at the start, so that every bad record is named before training. An unlimited source is walked by index.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.keyed_random import derive_seed, keyed_random
from spark_kernel.problems.difficulty import Grades, grade_of, is_taken
from spark_kernel.problems.held_out import CANONICAL_FORM, FIRST_FORM, canonical_text, is_held_out, may_be_evaluated
from spark_kernel.problems.source import ProblemSource, skipped_rows
from spark_kernel.records import Exclusion, ExclusionReason, Problem

PATIENCE = 20_000
"""Positions of an unlimited source walked without finding one more problem, after which it counts as exhausted."""
HELD_OUT_SPAN = 2**31
"""Held-out problems of an unlimited source are looked for from a keyed index below this."""

BLOCK = 64
"""Problems read and checked together: a check is a round trip to another process."""

CheckProblems = Callable[[Sequence[Problem]], Sequence[str | None]]
"""For each problem, why it is no use, in a sentence; None where it is fine."""

Progress = Callable[[int, int], None]
"""Called with how many problems of a finite source have been read and checked, and how many there are."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """The problems of a round, the cursor to take the next from, and what was passed over."""

    problems: tuple[Problem, ...]
    cursor: int
    exclusions: tuple[Exclusion, ...]


class ProblemStream:
    """Problems for training and held-out problems from one source; the two never share a canonical problem.

    Args:
        source: where problems come from.
        seed: keys the order of a finite source's epochs.
        held_out_fraction: share of problems, by hash, that is never trained on; above 0, below 1.
        on_bad_problem: "stop" raises at the first bad record, "skip" records an exclusion and goes on.
        check_problems: whatever else must hold of a problem (its verifier can read the gold), asked of every one.
        on_progress: told while a finite source is read and checked.
        canonical_form: by which canonical text problems are the same and held out (`problems.held_out`); a run's own.

    Raises:
        ProblemError: a record of a finite source is bad and on_bad_problem is "stop".
        InputError: a finite source has no trainable problem, or an argument is out of range.
    """

    def __init__(
        self,
        source: ProblemSource,
        *,
        seed: int,
        held_out_fraction: float,
        on_bad_problem: Literal["stop", "skip"] = "stop",
        check_problems: CheckProblems | None = None,
        canonical_form: int = CANONICAL_FORM,
        on_progress: Progress = lambda _done, _total: None,
    ) -> None:
        if not 0.0 < held_out_fraction < 1.0:
            raise InputError(f"problems.held_out_fraction = {held_out_fraction} is refused: above 0 and below 1.")
        self._source = source
        self._seed = seed
        self._fraction = held_out_fraction
        self._form = canonical_form
        self._skip = on_bad_problem == "skip"
        self._check_problems = check_problems
        self._block: tuple[int, list[Problem | ProblemError]] | None = None
        self._epoch: tuple[int, list[int]] | None = None
        self._trainable: list[int] = []
        self._held_out: list[int] = []
        self._shut_out: list[tuple[ExclusionReason, str, str]] = []
        self._shut_out += [(row.reason, row.place, row.detail) for row in skipped_rows(source)]
        if source.size is not None:
            self._distinct = self._survey(source.size, on_progress)

    @property
    def trainable_count(self) -> int | None:
        """Problems of a finite source that may be trained on; None for an unlimited source."""
        return None if self._source.size is None else len(self._trainable)

    def take(
        self,
        cursor: int,
        count: int,
        *,
        round: int,
        grades: Grades | None = None,
        besides: Sequence[Problem] = (),
    ) -> Taken:
        """The next `count` distinct problems from a cursor (0 at the start of a run).

        Args:
            grades: where given, a problem is taken with the chance that these give it (`difficulty`).
            besides: problems that the round has already.

        Exclusions: problems met again within this round or passed over by their grade; of an unlimited source, held-out
        and bad ones on the way. A finite source's held-out and bad problems are shut out once and for all, and stated
        when the cursor is 0.

        Raises:
            InputError: more problems are asked for than the source has.
            ProblemError: a bad problem of an unlimited source and on_bad_problem is "stop".
        """
        if count < 1 or cursor < 0:
            raise InputError(f"{count} problems from cursor {cursor} are refused: at least 1 from 0 or more.")
        if self._source.size is not None and count > self._distinct:
            raise InputError(
                f"problems.per_round = {count} asks for more problems than exist: {self._distinct} different problems "
                f"may be trained on ({len(self._held_out)} are held out, {len(self._bad)} are bad records)."
            )
        exclusions = [self._exclusion(round, *entry) for entry in self._shut_out] if cursor == 0 else []
        problems: list[Problem] = []
        seen = {name for problem in besides for name in self._names(problem)}
        last = cursor
        while len(problems) < count:
            if cursor - last > PATIENCE:
                raise InputError(
                    f"problems.per_round = {count} asks for more different problems than the source seems to have: "
                    f"{len(problems)} were found, then {PATIENCE} positions brought no other."
                )
            found, position = self._visit(self._index(cursor)), cursor
            cursor += 1
            if not isinstance(found, Problem):
                exclusions.append(self._exclusion(round, *found))
            elif grades is not None and not is_taken(grades, found, position, seed=self._seed):
                exclusions.append(self._exclusion(round, ExclusionReason.DIFFICULTY, found.id, grade_of(found) or ""))
            elif seen.isdisjoint(names := self._names(found)):
                seen |= names
                problems.append(found)
                last = cursor
            else:
                exclusions.append(self._exclusion(round, ExclusionReason.REPEATED, found.id, ""))
        return Taken(tuple(problems), cursor, tuple(exclusions))

    def held_out(self, count: int, *, seed: int) -> tuple[Problem, ...]:
        """The first `count` different held-out problems in an order keyed by `seed`, whatever training has taken.

        A source with fewer gives all it has, with a warning in the log.

        Raises:
            InputError: there is none, or count < 1.
            ProblemError: a bad problem of an unlimited source and on_bad_problem is "stop".
        """
        if count < 1:
            raise InputError(f"evaluation.problems = {count} is refused: at least 1.")
        problems: dict[str, Problem] = {}
        for problem in self._held_out_candidates(seed):
            problems.setdefault(canonical_text(problem, self._form), problem)
            if len(problems) == count:
                break
        if not problems:
            raise InputError(
                f"No problem is held out at problems.held_out_fraction = {self._fraction}: raise the fraction, give "
                "more problems, or switch evaluation off (evaluation.every = 0)."
            )
        if len(problems) < count:
            logger.warning("%d held-out problems were asked for; the source has %d.", count, len(problems))
        return tuple(problems.values())

    def _names(self, problem: Problem) -> set[str]:
        """By what a problem is known to be in a round already."""
        return {problem.id, "\n" + canonical_text(problem, self._form)}

    @property
    def _bad(self) -> list[str]:
        return [subject for reason, subject, _ in self._shut_out if reason is ExclusionReason.BAD_PROBLEM]

    def _survey(self, size: int, on_progress: Progress) -> int:
        """Sort a finite source's indices into trainable, held out and bad; the number of different trainable ones."""
        errors: list[str] = []
        distinct: set[str] = set()
        for index in range(size):
            if index % BLOCK == 0:
                on_progress(index, size)
            try:
                problem = self._checked(index)
            except ProblemError as error:
                errors.append(str(error))
                self._shut_out.append((ExclusionReason.BAD_PROBLEM, f"problem {index}", str(error)))
                continue
            if is_held_out(problem, self._fraction, self._form):
                if may_be_evaluated(problem, self._fraction, self._form):
                    self._held_out.append(index)
                self._shut_out.append((ExclusionReason.HELD_OUT, problem.id, ""))
            else:
                self._trainable.append(index)
                distinct.add(canonical_text(problem, self._form))
        if errors and not self._skip:
            others = f" {len(errors) - 1} more records are bad." if len(errors) > 1 else ""
            raise ProblemError(f"{errors[0]}{others} problems.on_bad_problem: skip would leave bad records out.")
        if not self._trainable:
            raise InputError(
                f"There is nothing to train on: of {size} problems {len(self._held_out)} are held out "
                f"(problems.held_out_fraction = {self._fraction}) and {len(errors)} are bad records"
                + (f", the first: {errors[0]}" if errors else ".")
            )
        return len(distinct)

    def _checked(self, index: int) -> Problem:
        """The problem at an index if it passes all checks.

        Raises:
            ProblemError: it does not; says which record.
        """
        start = index - index % BLOCK
        if self._block is None or self._block[0] != start:
            end = start + BLOCK if self._source.size is None else min(start + BLOCK, self._source.size)
            self._block = (start, self._read(range(start, end)))
        found = self._block[1][index - start]
        if isinstance(found, ProblemError):
            raise found
        return found

    def _read(self, indices: Sequence[int]) -> list[Problem | ProblemError]:
        """Problems, or what is wrong with them; an error is raised only once its problem is wanted."""
        found: list[Problem | ProblemError] = []
        for index in indices:
            try:
                found.append(self._source.problem(index))
            except ProblemError as error:
                found.append(error)
        if self._check_problems is not None:
            read = [(place, item) for place, item in enumerate(found) if isinstance(item, Problem)]
            for (place, problem), fault in zip(read, self._check_problems([p for _, p in read]), strict=True):
                if fault is not None:
                    record = problem.meta.get("record")
                    found[place] = ProblemError(f"{record}: {fault}" if record else fault)
        return found

    def _visit(self, index: int) -> Problem | tuple[ExclusionReason, str, str]:
        """The trainable problem at an index, or why there is none."""
        if self._source.size is not None:
            return self._source.problem(index)
        try:
            problem = self._checked(index)
        except ProblemError as error:
            if not self._skip:
                raise
            return ExclusionReason.BAD_PROBLEM, f"problem {index}", str(error)
        if is_held_out(problem, self._fraction, self._form):
            return ExclusionReason.HELD_OUT, problem.id, ""
        return problem

    def _index(self, position: int) -> int:
        """The source index at a position of the walk."""
        if self._source.size is None:
            return position
        epoch, place = divmod(position, len(self._trainable))
        if self._epoch is None or self._epoch[0] != epoch:
            order = list(self._trainable)
            keyed_random(self._seed, "epoch order", epoch).shuffle(order)
            self._epoch = (epoch, order)
        return self._epoch[1][place]

    def _held_out_candidates(self, seed: int) -> Iterator[Problem]:
        if self._source.size is not None:
            order = list(self._held_out)
            keyed_random(seed, "held-out order").shuffle(order)
            yield from map(self._source.problem, order)
            return
        # Patience counts from the last held-out problem, and small fractions need more of it.
        start = derive_seed(seed, "held-out start") % HELD_OUT_SPAN
        seen: set[str] = set()
        index = last = start
        rarest = self._fraction if self._form == FIRST_FORM else self._fraction**2
        while index - last < PATIENCE + 20 / rarest:
            try:
                if self._is_wanted(index, seen):
                    problem = self._checked(index)
                    seen.add(canonical_text(problem, self._form))
                    last = index
                    yield problem
            except ProblemError:
                if not self._skip:
                    raise
            index += 1

    def _is_wanted(self, index: int, seen: set[str]) -> bool:
        """Whether a problem of an unlimited source is one to evaluate on that has not been seen: asked before the
        checks, which cost more and are not needed for the many that are not.

        Raises:
            ProblemError: the problem cannot be made.
        """
        problem = self._source.problem(index)
        wanted = may_be_evaluated(problem, self._fraction, self._form)
        return wanted and canonical_text(problem, self._form) not in seen

    @staticmethod
    def _exclusion(round: int, reason: ExclusionReason, subject: str, detail: str) -> Exclusion:
        return Exclusion(round=round, stage="problems", reason=reason, subject_id=subject, detail=detail)
