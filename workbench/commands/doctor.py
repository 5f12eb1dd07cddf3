"""`workbench doctor`: what works on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from workbench.cli import FAILED, OK
from workbench.commands import quiet_transformers

MARKS = {"ok": "ok  ", "note": "note", "fail": "FAIL"}


@dataclass(frozen=True)
class DoctorArguments:
    """Look at versions, processor, GPUs, engines and kernels: a sentence each. Loads no model, downloads nothing.

    Exit code 1 where something is broken that a run would need.
    """


def doctor(arguments: Sequence[str]) -> int:
    """Print every finding as it is known."""
    tyro.cli(DoctorArguments, prog="workbench doctor", args=arguments)
    from workbench.doctor.findings import State, examine

    quiet_transformers()
    failed = 0
    for finding in examine():
        failed += finding.state is State.FAIL
        print(f"{MARKS[finding.state]}  {finding.subject:<13}{finding.sentence}", flush=True)
    return FAILED if failed else OK
