"""The queries of docs/run-folder.md, the independent oracle of everything that is shown of a run."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from spark_kernel.runs.reader import RunReader

DOC = Path(__file__).parents[2] / "docs" / "run-folder.md"


@cache
def queries() -> dict[str, str]:
    """Query by name."""
    text = DOC.read_text(encoding="utf-8")
    return dict(re.findall(r"^```sql (\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def ask(reader: RunReader, name: str) -> list[dict[str, Any]]:
    """The rows of a documented query."""
    return reader.query(queries()[name]).to_pylist()
