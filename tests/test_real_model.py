"""A round of the smollm2 preset on the real SmolLM2-135M, as a user starts it, at small n."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spark_kernel.runs.reader import RunReader

pytestmark = [pytest.mark.model, pytest.mark.slow]
SMALL = [
    "--rounds=1",
    "--problems.per_round=3",
    "--rollout.samples=4",
    "--rollout.max_new_tokens=32",
    "--rollout.verdict_max_new_tokens=32",
    "--evaluation.every=0",
    "--threads=2",
]


def test_a_round_of_smollm2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench", "run", "smollm2", "--out", str(tmp_path / "run"), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    reader = RunReader(tmp_path / "run")
    (report,) = reader.reports()
    solve = next(line for line in report.kinds if line.kind == "solve")
    assert solve.n == 12
    assert solve.length_mean
    assert solve.length_mean > 3
    rows = reader.table("rollouts").to_pylist()
    assert any(row["answer"] for row in rows), "the model boxes some answers"
    assert all(len(row["logprobs"]) == len(row["token_ids"]) for row in rows)

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from spark_kernel.models.load import models_folder

    base = AutoModelForCausalLM.from_pretrained(models_folder() / "smollm2-135m")
    adapted = PeftModel.from_pretrained(base, reader.checkpoints[-1].path)
    adapter = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    assert adapter
    if any(update.optimizer_steps for update in report.updates):
        assert any(bool(p.abs().max() > 0) for p in adapter)
