"""vLLM servers in processes of their own, on free ports of this machine, gone with the test that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

API_KEY = "a-key-that-must-not-be-written-down"
LORA = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "1", "--lora-target-modules"]
LORA += ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
START_SECONDS = 480


class VllmServer:
    """A server of a model folder; `wait` until it answers.

    A watcher kills it where the test process ends without doing so. The module behind `vllm serve` is run, because the
    CPU build's command does not start: it looks for the metadata of a package named vllm.
    """

    def __init__(self, folder: Path, log: Path, *flags: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--api-key", API_KEY, "--served-model-name", "starter"]
        command += ["--dtype", "float32", "--max-model-len", "400", "--enforce-eager", "--enable-scale-out"]
        command += ["--logprobs-mode", "processed_logprobs", "--no-enable-chunked-prefill"]
        command += ["--max-num-batched-tokens", "8192", *flags]
        environment = os.environ | {
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every server computes on the same core
            "OMP_NUM_THREADS": "1",
        }
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        group = self._process.pid
        watch = f"while kill -0 {os.getpid()} 2>/dev/null; do sleep 1; done; kill -KILL -- -{group}"
        self._watch = subprocess.Popen(["sh", "-c", watch], start_new_session=True)

    def wait(self) -> VllmServer:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.3)
        raise AssertionError(f"the server did not start: {self._log.read_text()[-3000:]}")

    def metric(self, name: str) -> float:
        """A figure of the server's own, summed over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """At once, as a machine that goes away."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._watch.kill()
        self._watch.wait()

    def stop(self) -> None:
        """In order, and hard if that takes long."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
        self.kill()


def start_together(folder: Path, logs: Path, flags: Sequence[Sequence[str]]) -> list[VllmServer]:
    """Several servers of a model, started side by side; all are stopped if one does not start."""
    servers = [VllmServer(folder, logs / f"server-{i}.log", *own) for i, own in enumerate(flags)]
    try:
        return [server.wait() for server in servers]
    except BaseException:
        for server in servers:
            server.stop()
        raise
