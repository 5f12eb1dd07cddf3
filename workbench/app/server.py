"""The HTTP server under the page: its socket is ours before anything else starts, so that a start
ends well or in one sentence.

Gradio's own start asks itself over HTTP whether it is there. That fails where a proxy is set in the environment or the
machine is slow, and ends in advice to share the page; it is not used.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from spark_kernel.errors import InputError

START_SECONDS = 120.0
"""Longest that the server may take to come up, on a busy machine."""
CLOSING_SECONDS = 5.0
BACKLOG = 2048


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        InputError: the port is taken or not allowed, or the address is none of this machine's.
    """
    name = "127.0.0.1" if address == "localhost" else address.strip("[]")
    listening = socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((name, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(_why(address, port, error)) from None
    return listening


@contextmanager
def served(app: Any, listening: socket.socket) -> Iterator[None]:
    """Serve an ASGI application on a socket, from a thread of its own, until the block is left.

    Raises:
        InputError: it did not come up.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app, loop="asyncio", log_level="warning", lifespan="on",
            ws="none", proxy_headers=False, server_header=False,
            timeout_graceful_shutdown=2,
        )
    )  # fmt: skip

    def run() -> None:
        # Where it cannot start it would end the process; here the caller says so.
        with suppress(SystemExit):
            server.run(sockets=[listening])

    thread = threading.Thread(target=run, name="http-server", daemon=True)
    thread.start()
    try:
        end = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive():
                raise InputError("The app did not come up: the server ended at once; the lines above say why.")
            if time.monotonic() > end:
                raise InputError(
                    f"The app did not come up within {START_SECONDS:.0f} seconds: this machine is too busy; try again."
                )
            time.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=CLOSING_SECONDS)
        server.force_exit = True
        thread.join(timeout=CLOSING_SECONDS)
        listening.close()


def _why(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {address} is taken by another program: choose another one with --port (0: a free one)."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} of {address} is not allowed to you: choose one from 1024 on with --port."
    why = error.strerror or error
    return f"The app cannot listen on {address}, port {port}: {why}. Choose an address of this machine."
