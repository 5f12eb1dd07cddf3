"""What NVIDIA's driver and torch say of this machine's GPUs, and why none can be used."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

import torch

FIELDS = "driver_version,name"
BFLOAT16_CAPABILITY = (8, 0)
"""Compute capability from which a card has bfloat16 arithmetic (Ampere); older ones emulate it slowly."""
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver: its version, the newest CUDA that it runs (as in (13, 0); None where it does not say), its cards."""

    version: str
    cuda: tuple[int, int] | None
    cards: tuple[str, ...]


def query_driver() -> Driver | None:
    """What `nvidia-smi` says; None where there is none, it fails, or it lists no card."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    rows = _output(program, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits")
    found = [line.partition(", ") for line in rows.splitlines() if _pair(line) and ", " in line]
    if not found:
        return None
    version, cards = found[0][0], tuple(name for _, _, name in found)
    named = re.search(r"CUDA Version: (\d+\.\d+)", _output(program))
    return Driver(version, _pair(named.group(1)) if named else None, cards)


def why_no_cuda(driver: Driver | None) -> str:
    """Why torch finds no CUDA device, and what to do; a clause without a full stop."""
    built = torch.version.cuda
    if built is None and driver is None:
        return f"torch {torch.__version__} is built for CPUs only, and no NVIDIA driver answers here (nvidia-smi)"
    if built is None:
        return (
            f"the driver lists {driver.cards[0] if driver else 'a card'}, but torch {torch.__version__} is built "
            "for CPUs only: `make setup VARIANT=gpu` installs the other build"
        )
    if driver is None:
        return f"torch is built for CUDA {built}, but no NVIDIA driver answers here (nvidia-smi): install one"
    wanted = _pair(built)
    if driver.cuda is not None and wanted is not None and driver.cuda[0] < wanted[0]:
        return (
            f"driver {driver.version} runs CUDA {driver.cuda[0]}.{driver.cuda[1]} at most and torch is built for CUDA "
            f"{built}: install a newer driver, or a torch for CUDA {driver.cuda[0]}"
        )
    return f"driver {driver.version} and torch for CUDA {built} should fit, but torch says: {_refusal_of_torch()}"


def _refusal_of_torch() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")
    return "nothing; is the card hidden by CUDA_VISIBLE_DEVICES?"


def _output(program: str, *arguments: str) -> str:
    """What it prints; nothing where it fails or does not answer."""
    command = [program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _pair(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None
