"""Worker processes that score outputs under a deadline.

A timeout, a crash and an unparseable answer are three different results. Each worker answers every output as soon
as it is scored, so the pool knows which output a worker hangs or dies at: only that one becomes a timeout or a
crash, and a fresh worker takes the rest. Results come back in the order of the requests.
"""

from __future__ import annotations

import math
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.records import Parse, Problem, Score
from spark_kernel.verify.verifier import VerifyRequest
from spark_kernel.verify.wire import encode_problems, encode_requests, score_in
from spark_kernel.verify.worker_handle import LOAD_SECONDS, WorkerHandle, start_failure

CHUNK = 128
"""Most items handed to a worker at once: enough to make the round trip cheap, few enough to share out the work."""
WORKER_LIFE = 5_000
"""Outputs after which a worker is replaced: its memory grows with the outputs it has read, and a run may be long."""
POLL_SECONDS = 1.0
MEMORY_BYTES = 4 << 30

STALL_FACTOR = 10.0
"""How many times its deadline an output may take by the clock, on a machine too busy to give it its processor time."""

Encode = Callable[[Sequence[int]], bytes]
Progress = Callable[[int, int], None]


class VerifierPool:
    """A fixed number of worker processes, started on first use; use it as a context manager or call `close`.

    Workers are plain interpreters: they import the verifiers they are asked for and no torch. They end with this
    process, however it ends. Calls from several threads take turns.

    Args:
        workers: worker processes.
        deadline_seconds: processor seconds one output may take, so that a busy machine fails nobody; loading does
            not count. A worker that neither ends nor uses up its processor time is ended after `STALL_FACTOR` times
            as long. Where the system does not tell a worker's processor time, these are seconds of the clock.
        correct_threshold: an answer that was read and has at least this reward is correct.
        memory_bytes: address space of a worker; an output that needs more is a crash.
    """

    def __init__(
        self,
        workers: int,
        deadline_seconds: float,
        correct_threshold: float = 1.0,
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if workers < 1 or not deadline_seconds > 0:
            raise InputError(
                f"verify.workers = {workers} and verify.deadline_seconds = {deadline_seconds} are refused: at least "
                "1 worker and more than 0 seconds."
            )
        self._size = workers
        self._deadline = deadline_seconds
        self._threshold = correct_threshold
        self._memory_bytes = memory_bytes
        self._workers: list[WorkerHandle] = []
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def score(self, requests: Sequence[VerifyRequest], on_progress: Progress | None = None) -> list[Score]:
        """Score outputs, in order. An exception in the caller (Ctrl-C, or one from `on_progress`) ends the busy
        workers; the pool stays usable.

        Args:
            requests: what to score; each task names its verifier.
            on_progress: called with the numbers of scored and of all outputs, now and then and at the end.

        Raises:
            InputError: a task names an unknown verifier, or a problem's meta is no JSON.
            SparkError: workers cannot be started.
        """

        def encode(chunk: Sequence[int]) -> bytes:
            return encode_requests([requests[i] for i in chunk], self._threshold)

        def lost(_: int, parse: Parse, reason: str) -> Score:
            return Score(None, None, parse, None, reason)

        return self._run(len(requests), encode, score_in, lost, on_progress)

    def check_golds(self, problems: Sequence[Problem], on_progress: Progress | None = None) -> list[str | None]:
        """For each problem, why its gold is no use to its verifier, in a sentence; None where it is fine.

        Run before training, under the same deadline: a gold can hang a verifier as well as an answer can.

        Raises:
            InputError: a problem names an unknown verifier, or its meta is no JSON.
            SparkError: workers cannot be started.
        """

        def encode(chunk: Sequence[int]) -> bytes:
            return encode_problems([problems[i] for i in chunk])

        def lost(item: int, _: Parse, reason: str) -> str:
            problem = problems[item]
            return f'Problem {problem.id}: its gold could not be checked by "{problem.verifier}". {reason}'

        return self._run(len(problems), encode, lambda finding: finding, lost, on_progress)

    def close(self) -> None:
        """End all workers. The pool may be used again; it then starts new ones."""
        with self._lock:
            self._discard(self._workers)

    def _run(
        self,
        count: int,
        encode: Encode,
        decode: Callable[[Any], Any],
        lost: Callable[[int, Parse, str], Any],
        on_progress: Progress | None,
    ) -> list[Any]:
        with self._lock:
            job = _Job(count, encode, decode, lost, min(CHUNK, max(1, math.ceil(count / (4 * self._size)))))
            try:
                self._drive(job, on_progress)
            except BaseException:
                self._discard([worker for worker in self._workers if worker.busy])
                raise
            return job.results

    def _drive(self, job: _Job, on_progress: Progress | None) -> None:
        reported = -1
        while job.finished < job.count:
            self._assign(job)
            job.encode_ahead()
            self._collect(job)
            if on_progress is not None and job.finished != reported:
                reported = job.finished
                on_progress(job.finished, job.count)

    def _assign(self, job: _Job) -> None:
        """Give every idle worker a chunk, starting workers as far as there is work for them."""
        idle = [worker for worker in self._workers if not worker.busy]
        worn = [worker for worker in idle if worker.handed >= WORKER_LIFE] if job.queue else []
        self._discard(worn)
        for worker in idle:
            if job.queue and worker not in worn:
                self._hand(worker, job)
        while job.queue and len(self._workers) < self._size:
            worker = WorkerHandle(self._memory_bytes)
            self._workers.append(worker)
            self._selector.register(worker.connection, selectors.EVENT_READ, worker)
            self._hand(worker, job)

    def _hand(self, worker: WorkerHandle, job: _Job) -> None:
        chunk = job.queue.popleft()
        try:
            worker.assign(chunk, job.take_line(chunk))
        except OSError:  # it died while idle: no output is to blame
            job.queue.appendleft(chunk)
            worker.chunk = ()
            how = worker.wait()
            self._discard([worker])
            if not worker.served:
                raise start_failure(how) from None

    def _collect(self, job: _Job) -> None:
        """Wait for the next messages, hang-up or deadline, and act on it."""
        busy = [worker for worker in self._workers if worker.busy]
        now = time.monotonic()
        wait = max(0.0, min([POLL_SECONDS, *(self._time_left(worker, now) for worker in busy)]))
        readable: list[WorkerHandle] = [key.data for key, _ in self._selector.select(wait)]
        # If this process was itself held up (stopped, or starved of CPU), its workers are not to blame.
        late = time.monotonic() - now - wait
        for worker in readable:
            self._receive(worker, job)
        for worker in busy:
            if worker in readable or worker not in self._workers:
                continue
            if late > 0.5 and worker.item_started is not None:
                worker.item_started += late
            if self._time_left(worker, time.monotonic()) <= 0:
                self._time_out(worker, job)

    def _time_left(self, worker: WorkerHandle, now: float) -> float:
        if worker.item_started is None:
            return worker.loading_since + LOAD_SECONDS - now
        left = worker.item_started + self._deadline - now
        if left > 0:
            return left
        used = worker.cpu_seconds()
        if used is None:
            return left
        stalled = worker.item_started + STALL_FACTOR * self._deadline - now
        return min(self._deadline - (used - worker.item_cpu), stalled)

    def _receive(self, worker: WorkerHandle, job: _Job) -> None:
        messages = worker.read()
        if messages is None:
            self._bury(worker, job, worker.wait())
            return
        for message in messages:
            if message[0] == "refused":
                raise InputError(message[1])
            if message[0] == "ready":
                worker.served = True
            elif message[0] == "leaving":
                self._requeue(worker, job, worker.chunk[worker.done :])
                return
            else:
                job.finish(worker.chunk[message[0]], message[1])
                worker.done = message[0] + 1
        worker.begin_item()

    def _bury(self, worker: WorkerHandle, job: _Job, how: str) -> None:
        """The worker died by itself: a crash of the output it was at, if it was at one."""
        if not worker.busy:
            self._discard([worker])
            return
        if worker.item_started is None:
            if not worker.served:
                raise start_failure(how)
            self._requeue(worker, job, worker.chunk)
            return
        job.lose(worker.current, Parse.CRASH, f"The verifier's process died ({how}).")
        self._requeue(worker, job, worker.rest)

    def _time_out(self, worker: WorkerHandle, job: _Job) -> None:
        """End a worker that is past the deadline; an answer that it sent in the meantime still counts."""
        if worker.item_started is None:
            worker.kill()
            raise start_failure(f"no answer within {LOAD_SECONDS:.0f} s")
        late_item = worker.current
        worker.kill()
        while (messages := worker.read()) is not None:
            for message in messages:
                if isinstance(message[0], int):
                    job.finish(worker.chunk[message[0]], message[1])
                    worker.done = message[0] + 1
        if worker.busy and worker.current == late_item:
            reason = f"The verifier took longer than its deadline of {self._deadline:g} s of processor time."
            job.lose(late_item, Parse.TIMEOUT, reason)
            self._requeue(worker, job, worker.rest)
        else:
            self._requeue(worker, job, worker.chunk[worker.done :])

    def _requeue(self, worker: WorkerHandle, job: _Job, items: Sequence[int]) -> None:
        """Put a dead worker's unanswered items first in the queue, and forget the worker."""
        if items:
            job.queue.appendleft(items)
        self._discard([worker])

    def _discard(self, workers: Sequence[WorkerHandle]) -> None:
        for worker in list(workers):
            self._selector.unregister(worker.connection)
            self._workers.remove(worker)
            worker.close()


class _Job:
    """One call: the chunks still to hand out, and the results so far."""

    def __init__(
        self,
        count: int,
        encode: Encode,
        decode: Callable[[Any], Any],
        lost: Callable[[int, Parse, str], Any],
        chunk: int,
    ) -> None:
        self.count = count
        self.finished = 0
        self.results: list[Any] = [None] * count
        self.queue: deque[Sequence[int]] = deque(
            range(start, min(start + chunk, count)) for start in range(0, count, chunk)
        )
        self._encode = encode
        self._decode = decode
        self._lost = lost
        self._ahead: tuple[Sequence[int], bytes] | None = None

    def encode_ahead(self) -> None:
        """Encode the next chunk while the workers are busy."""
        if self.queue and (self._ahead is None or self._ahead[0] is not self.queue[0]):
            self._ahead = self.queue[0], self._encode(self.queue[0])

    def take_line(self, chunk: Sequence[int]) -> bytes:
        """The chunk as a line for a worker."""
        if self._ahead is not None and self._ahead[0] is chunk:
            return self._ahead[1]
        return self._encode(chunk)

    def finish(self, item: int, result: Any) -> None:
        """Record a worker's answer."""
        self.results[item] = self._decode(result)
        self.finished += 1

    def lose(self, item: int, parse: Parse, reason: str) -> None:
        """Record that there will be no answer."""
        self.results[item] = self._lost(item, parse, reason)
        self.finished += 1
