"""Names for runs that are started from a notebook, whose cells are run more than once."""

from __future__ import annotations

from itertools import count
from pathlib import Path


def unused_run(path: str | Path) -> Path:
    """The path, or where a run stands there already the first free of path-2, path-3, ..."""
    wanted = Path(path)
    for number in count(2):
        if not (wanted / "run.json").exists():
            return wanted
        wanted = Path(f"{path}-{number}")
    raise AssertionError("counting never ends")
