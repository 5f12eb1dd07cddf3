"""The process that scores: reads lines of requests from a socket, answers one line per output.

Started by `verify.pool` as a plain interpreter, so that it holds neither torch nor the caller's main module. It
ignores Ctrl-C (the pool decides) and dies with the pool, even in the middle of a long computation.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.prompts.thinking import DEFAULT_TAGS
from spark_kernel.records import Parse, Problem, Score
from spark_kernel.verify.codec import decode_problems, decode_requests, score_out
from spark_kernel.verify.golds import check_all_golds
from spark_kernel.verify.registry import get_verifier
from spark_kernel.verify.scoring import score_request
from spark_kernel.verify.verifier import Verifier

PARENT_CHECK_SECONDS = 2.0
ENCODER = json.JSONEncoder(separators=(",", ":"))


def main(connection_fd: int, lifeline_fd: int, parent_pid: int, memory_bytes: int) -> None:
    """Serve until the pool closes the connection.

    Args:
        connection_fd: a stream socket to the pool.
        lifeline_fd: the read end of a pipe that nobody writes to; its hang-up means that the pool is gone.
        parent_pid: the pool's process.
        memory_bytes: limit of this process's address space; beyond it the output counts as a crash.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(lifeline_fd)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = socket.socket(fileno=connection_fd)
    verifiers: dict[str, Verifier] = {}
    buffer = bytearray()
    while (line := _read_line(connection, buffer, parent_pid)) is not None:
        _serve(connection, json.loads(line), verifiers)


def _die_with(lifeline_fd: int) -> None:
    """Have the kernel send SIGIO, whose default is to end the process, when the lifeline hangs up.

    The kernel delivers it even while C code holds the interpreter; a death signal (PR_SET_PDEATHSIG) would instead
    follow the thread that started this process, which may end long before the pool does.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)


def _read_line(connection: socket.socket, buffer: bytearray, parent_pid: int) -> bytes | None:
    """The next line; None when the pool has gone."""
    searched = 0
    while (end := buffer.find(b"\n", searched)) < 0:
        searched = len(buffer)
        if not select.select([connection], [], [], PARENT_CHECK_SECONDS)[0]:
            if os.getppid() != parent_pid:
                return None
            continue
        received = connection.recv(1 << 18)
        if not received:
            return None
        buffer += received
    line = bytes(buffer[:end])
    del buffer[: end + 1]
    return line


def _serve(connection: socket.socket, message: dict[str, Any], verifiers: dict[str, Verifier]) -> None:
    """Load what the chunk needs, say so, then score or check item by item, each answered at once."""
    checking = message["operation"] == "check"
    items: list[Any] = decode_problems(message) if checking else decode_requests(message)
    tags = tuple((opening, closing) for opening, closing in message.get("thinking", DEFAULT_TAGS))
    try:
        for name in {item.verifier if checking else item.task.verifier for item in items}:
            if name not in verifiers:
                verifiers[name] = get_verifier(name)
    except InputError as error:
        _send(connection, ["refused", str(error)])
        return
    _send(connection, ["ready"])
    for place, item in enumerate(items):
        out_of_memory = False
        try:
            if checking:
                line = _encode([place, _check(verifiers[item.verifier], item)])
            else:
                score = score_request(item, message["threshold"], verifiers[item.task.verifier], tags)
                line = _encode([place, score_out(score)])
        except Exception as error:  # every failure of a verifier is recorded, as a crash of this output only
            failure = _describe(error)
            result = f"{_subject(item)} {failure}" if checking else score_out(_crash(failure))
            line = _encode([place, result])
            out_of_memory = isinstance(error, MemoryError)
        connection.sendall(line)
        if out_of_memory:  # what is left of this process may be too full to serve the next output
            _send(connection, ["leaving"])
            os._exit(0)


def _check(verifier: Verifier, problem: Problem) -> str | None:
    try:
        check_all_golds(verifier, problem)
    except InputError as error:
        return str(error)
    return None


def _subject(problem: Problem) -> str:
    return f'Problem {problem.id}: its gold could not be checked by the verifier "{problem.verifier}".'


def _crash(reason: str) -> Score:
    return Score(None, None, Parse.CRASH, None, reason)


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError):
        text = text or "the worker's memory limit is used up"
    return f"The verifier raised {type(error).__name__}: {text}".rstrip(": ") + "."


def _send(connection: socket.socket, message: list[Any]) -> None:
    connection.sendall(_encode(message))


def _encode(message: list[Any]) -> bytes:
    return ENCODER.encode(message).encode("ascii") + b"\n"


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
