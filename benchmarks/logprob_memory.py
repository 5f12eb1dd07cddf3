"""Peak memory of one log-probability pass, in a process of its own.

    python -m benchmarks.logprob_memory FORM N H V DEVICE

The head's weights and their gradient are subtracted: both grow with the vocabulary whatever the pass does.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

import torch

from spark_kernel.models.token_logprobs import OutputHead, plain_logprobs, token_logprobs

CHUNK = 1 << 23
"""Logits in a chunk."""


def main(form: str, rows: int, size: int, vocabulary: int, device: str) -> float:
    """MiB above what was held before the pass, without the head's gradient."""
    head = OutputHead(torch.nn.Linear(size, vocabulary, bias=False, device=device))
    hidden = torch.randn(rows, size, device=device, requires_grad=True)
    targets = torch.randint(0, vocabulary, (rows,), device=device)
    _pass(form, hidden[:2], targets[:2], head, 1)  # libraries, threads and the gradient's memory
    head.module.weight.grad = None
    before = _peak(device)
    _pass(form, hidden, targets, head, CHUNK)
    return _peak(device) - before


def _pass(form: str, hidden: torch.Tensor, targets: torch.Tensor, head: OutputHead, chunk: int) -> None:
    vocabulary = head.module.out_features
    if form == "plain":
        logprobs, _ = plain_logprobs(hidden, targets, head, 1.0)
    else:
        logprobs, _ = token_logprobs(hidden, targets, head, chunk_logits=max(chunk, vocabulary), vocabulary=vocabulary)
    logprobs.sum().backward()


def _peak(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands ru_maxrss on from parent to child, this one not
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    form, rows, size, vocabulary, device = sys.argv[1:]
    print(json.dumps({"mib": main(form, int(rows), int(size), int(vocabulary), device)}))
