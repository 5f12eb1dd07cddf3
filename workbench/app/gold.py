"""The verifier's side of a question with a gold answer, on a thread of its own: a slow gold holds no model."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from spark_kernel.errors import InputError
from spark_kernel.records import Parse

if TYPE_CHECKING:
    from spark_kernel.records import Problem, Score
    from spark_kernel.test_time.steps import Attempt
    from spark_kernel.verify.pool import VerifierPool
    from spark_kernel.verify.verifier import VerifyRequest

VERIFY_SECONDS = 3.0
"""Longest that a gold answer may take to be read, and one output to be compared with it."""
CLOSING_SECONDS = 5.0


class GoldDesk:
    """Does what it is given one by one, on its own thread, with a worker process that can be ended.

    Args:
        seconds: the worker's deadline for each gold and each output.
    """

    def __init__(self, seconds: float = VERIFY_SECONDS) -> None:
        self._seconds = seconds
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._pool: VerifierPool | None = None
        self._thread = threading.Thread(target=self._run, name="gold-desk", daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], None]) -> None:
        """Queue a function; it must raise nothing."""
        self._work.put(work)

    def check(self, problem: Problem) -> None:
        """Read a gold answer. On this desk's thread only.

        Raises:
            InputError: its verifier cannot read it, or not in time.
        """
        (complaint,) = self._verifiers().check_golds([problem])
        if complaint is not None:
            raise InputError(f'The gold answer is no use to the verifier "{problem.verifier}": give another one.')

    def findings(
        self, problem: Problem, attempt: Attempt, check_stop: Callable[[], None]
    ) -> list[tuple[int, bool | None, str]]:
        """For every answer of a chain its step, whether it is right (None: not known), and why. On this desk's thread.

        After one output that took too long the others are not tried: the gold is to blame, and time is everybody's.
        """
        from spark_kernel.evaluate.chains import chain_groups

        late: list[Score] = []

        def score(requests: Sequence[VerifyRequest]) -> list[Score]:
            scores = []
            for request in requests:
                check_stop()
                scores.append(late[0] if late else self._verifiers().score([request])[0])
                if not late and scores[-1].parse is Parse.TIMEOUT:
                    late.append(scores[-1])
            return scores

        found = []
        groups = chain_groups([attempt], {problem.id: problem}, score, round=0, policy_version=0)
        for step, group in zip(attempt.steps, groups, strict=True):
            result = group.rollouts[0].score
            if not step.kind.judges and result is not None:
                unread = result.parse in (Parse.TIMEOUT, Parse.CRASH)
                found.append((step.index, None if unread else result.correct, result.reason))
        return found

    def close(self) -> None:
        """End the thread and the worker."""
        self._work.put(None)
        self._thread.join(timeout=CLOSING_SECONDS + self._seconds)
        if self._pool is not None:
            self._pool.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _verifiers(self) -> VerifierPool:
        from spark_kernel.verify.pool import VerifierPool

        if self._pool is None:
            self._pool = VerifierPool(1, self._seconds, 1.0)
        return self._pool
