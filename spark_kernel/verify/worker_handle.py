"""The pool's end of one worker process: start it, hand it a chunk, read its lines, end it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spark_kernel.errors import SparkError

WORKER_MODULE = "spark_kernel.verify.worker"
CPU_CLOCK = 2
"""What Linux adds to a process id to name that process's clock of scheduled time (CPUCLOCK_SCHED)."""
LOAD_SECONDS = 300.0
"""Longest that starting an interpreter and importing scoring libraries may take, on a busy machine."""


class WorkerHandle:
    """One worker process and the chunk it is at.

    `chunk` holds the caller's item numbers, `done` how many of them are answered, `handed` how many items
    all its chunks had; `item_started` is the time at which the worker began the current one (None while it loads) and
    `item_cpu` the processor time it had used by then, so that the deadline is the item's alone.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.chunk: Sequence[int] = ()
        self.done = 0
        self.handed = 0
        self.item_started: float | None = None
        self.item_cpu = 0.0
        self.served = False
        self._buffer = bytearray()
        self.connection, theirs = socket.socketpair()
        lifeline_theirs, self._lifeline = os.pipe()
        arguments = [theirs.fileno(), lifeline_theirs, os.getpid(), memory_bytes]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", WORKER_MODULE, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline_theirs),
                # A group of its own: Ctrl-C in the terminal reaches the pool, which decides what becomes of workers.
                process_group=0,
                env=_environment(),
            )
        finally:
            theirs.close()
            os.close(lifeline_theirs)
        self.connection.settimeout(LOAD_SECONDS)
        self.loading_since = time.monotonic()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def busy(self) -> bool:
        """Whether it has items that are not answered yet."""
        return self.done < len(self.chunk)

    @property
    def current(self) -> int:
        """The item it is at."""
        return self.chunk[self.done]

    @property
    def rest(self) -> Sequence[int]:
        """The items after the current one."""
        return self.chunk[self.done + 1 :]

    def begin_item(self) -> None:
        """Note that the current item starts now."""
        self.item_started = time.monotonic()
        self.item_cpu = self.cpu_seconds() or 0.0

    def cpu_seconds(self) -> float | None:
        """Processor time the worker has used; None where the system does not tell (not Linux), or it is gone."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            return time.clock_gettime((~self._process.pid << 3) | CPU_CLOCK)
        except OSError:
            return None

    def assign(self, chunk: Sequence[int], line: bytes) -> None:
        """Hand it a chunk.

        Raises:
            OSError: the worker is gone.
        """
        self.chunk, self.done, self.item_started = chunk, 0, None
        self.handed += len(chunk)
        self.loading_since = time.monotonic()
        self.connection.sendall(line)

    def read(self) -> list[list[Any]] | None:
        """The messages that have arrived, after the connection was found readable; None when the worker is gone."""
        try:
            received = self.connection.recv(1 << 18)
        except ConnectionError:
            return None
        if not received:
            return None
        self._buffer += received
        end = self._buffer.rfind(b"\n") + 1
        lines = self._buffer[:end].decode("ascii").split("\n")[:-1]
        del self._buffer[:end]
        return [json.loads(line) for line in lines]

    def kill(self) -> str:
        """End the process at once, reap it and say how it ended; what it had sent can still be read."""
        if self._process.poll() is None:
            self._process.kill()
        return _describe_exit(self._process.wait())

    def wait(self) -> str:
        """Reap a process that hung up, and say how it ended."""
        try:
            return _describe_exit(self._process.wait(timeout=1.0))
        except subprocess.TimeoutExpired:
            return self.kill()

    def close(self) -> None:
        """End the process and give back its descriptors."""
        self.kill()
        self.connection.close()
        os.close(self._lifeline)


def _environment() -> dict[str, str]:
    """The caller's environment and import path; one thread per numerical library, because workers run side by side."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return dict(os.environ) | threads | {"PYTHONPATH": os.pathsep.join(paths)}


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, perhaps for want of memory" if -code == signal.SIGKILL else name


def start_failure(how: str) -> SparkError:
    """A worker that never got as far as scoring."""
    return SparkError(
        f"A verifier worker ended before it could score anything ({how}); its own message stands above, on the "
        "error output."
    )
