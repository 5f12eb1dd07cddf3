"""How much memory this process has needed so far."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory() -> dict[str, int]:
    """Peak since the process began, in bytes: `process`, its resident memory; `device`, what torch held on the current
    CUDA device, where there is one.

    On Linux the kernel's own figure of this process is read: `getrusage` would hand on the parent's to a child.
    """
    found = {"process": _resident()}
    if torch.cuda.is_available():
        found["device"] = int(torch.cuda.max_memory_allocated())
    return found


def _resident() -> int:
    if STATUS.exists():
        match = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
