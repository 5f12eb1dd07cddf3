"""README's Python example runs as it is printed, and says what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_python_example_runs_as_printed(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, query = done.stdout.splitlines()
    kinds = [tuple(line.split()[:2]) for line in lines]
    assert kinds[0] == ("solve", "problem")
    assert {kind for kind, _ in kinds} == {"solve", "pointwise", "pairwise", "reflection"}
    reader = RunReader(tmp_path / "runs/by-hand")
    assert reader.rounds == [1, 2, 3, 4]
    assert reader.status().state is RunState.FINISHED
    solved = [row for row in reader.table("tasks").to_pylist() if row["kind"] == "solve" and row["round"] == 1]
    sampled = reader.query("SELECT count(*) AS n FROM rollouts WHERE round = 1 AND period = 'policy'").to_pylist()
    assert (len(solved), sampled) == (16, [{"n": 16 * 8}])
    assert query == str(reader.query("SELECT round, kind, accuracy FROM kind_stats ORDER BY round").to_pylist())
