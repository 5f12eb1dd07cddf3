"""The recorded run that ships with the package: a short real run, to look at without training anything.

It was made by `python scripts/make_recorded_run.py`: the quickstart preset with fewer and smaller rounds. Its weights
are not here, so it can be looked at and compared, but not resumed or forked.
"""

from __future__ import annotations

from pathlib import Path

NAME = "quickstart"


def recorded_run() -> Path:
    """The folder of the recorded run; `RunReader` and `RunView` open it. Readers never write into a run folder."""
    return Path(__file__).parent / NAME
