"""The recorded runs that ship with the package: short real runs, to look at without training anything.

They were made by `python scripts/make_recorded_run.py`: the quickstart with fewer and smaller rounds, and beside it the
same without judging (policy-only), to compare with. Their weights are not here, so they can be looked at and compared,
but not resumed or forked.
"""

from __future__ import annotations

from pathlib import Path

NAME = "quickstart"
POLICY_ONLY = "quickstart-policy-only"


def recorded_run(name: str = NAME) -> Path:
    """The folder of a recorded run; `RunReader` and `RunView` open it. Readers never write into a run folder."""
    return Path(__file__).resolve().parent / name


def recorded_runs() -> tuple[Path, ...]:
    """The folders of all of them, the one of SPARK first."""
    return recorded_run(), recorded_run(POLICY_ONLY)
