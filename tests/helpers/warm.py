"""Real processes without the wait for their imports: forked from a server that has torch and transformers loaded.

A process made here has a pid, an environment, a folder, streams and signal handlers of its own, and runs a module as
`python -m` does; only its imports were made before. Tests that are about starting (imports, set-up, what an installed
package brings) start their processes the plain way.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOADED = ("spark_kernel.training.lifecycle", "workbench.commands.train", "tests.helpers.runs")
STREAMS = 3


def run_module(
    module: str, arguments: Sequence[str], *, cwd: Path | None, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments` to its end; nothing is checked.

    Raises:
        TimeoutExpired: it took longer; it has been killed.
    """
    with socket.socket(socket.AF_UNIX) as line, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        line.connect(_server())
        with Path(os.devnull).open() as nothing:
            request = {"module": module, "arguments": list(arguments), "cwd": str(cwd or Path.cwd())}
            body = json.dumps(request | {"environment": dict(environment)}).encode()
            streams = [nothing.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(line, [len(body).to_bytes(4, "big")], streams)
            line.sendall(body)
        answers = line.makefile()
        pid = int(answers.readline())
        line.settimeout(timeout)
        try:
            code = int(answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([module, *arguments], timeout) from None
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
        return subprocess.CompletedProcess([module, *arguments], code, *texts)


@functools.cache
def _server() -> str:
    """The address of this process's server, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="warm-")
    address = str(Path(folder.name) / "socket")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.warm", address],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the tests
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the server of warm processes did not start"
    atexit.register(folder.cleanup)
    atexit.register(server.kill)
    return address


def serve(address: str) -> None:
    """Fork for every connection until the process that started this is gone."""
    for module in LOADED:
        __import__(module)
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        door.settimeout(5)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
        while os.getppid() == parent:
            try:
                line, _ = door.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                door.close()
                _watch(line)
            line.close()


def _watch(line: socket.socket) -> None:
    """Start the process that a request describes, and say its pid and, when it has ended, its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    line.settimeout(None)
    size, streams, _, _ = socket.recv_fds(line, 4, STREAMS)
    body = line.makefile("rb").read(int.from_bytes(size, "big"))
    request = json.loads(body)
    pid = os.fork()
    if pid == 0:
        line.close()
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        _become(request)
    line.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: dict[str, object]) -> None:
    """Run the module as `python -m` does, and end as it ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[arg-type]
    os.chdir(str(request["cwd"]))
    sys.path[0] = str(Path.cwd())
    sys.argv = ["", *request["arguments"]]  # type: ignore[misc]
    code = 0
    try:
        runpy.run_module(str(request["module"]), run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        _finish()
    os._exit(code)


def _finish() -> None:
    """What the interpreter does at its end: threads are waited for, exit handlers run, streams flushed."""
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
