"""Small runs of a random model for tests of the trainer: every phase has work to do, and a round is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from spark_kernel.config import RunConfig, load_config
from spark_kernel.runs.reader import RunReader
from tests.helpers.tiny_models import save_talkative_llama

TIMES = {"seconds"}


def write_problems(path: Path, count: int = 40) -> Path:
    """A problem file whose answers the hash verifier judges."""
    lines = [json.dumps({"question": f"What is number {i}?", "gold": str(i), "id": f"p{i}"}) for i in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tiny_config(folder: Path, **overrides: Any) -> RunConfig:
    """A run of a talkative random model on a problem file; model and problems are written to `folder` if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        save_talkative_llama(folder / "model")
        write_problems(folder / "problems.jsonl")
    settings: dict[str, Any] = {
        "threads": 1,
        "rounds": 4,
        "model__path": str(folder / "model"),
        "problems": {
            "source": "files",
            "options": {
                "path": str(folder / "problems.jsonl"),
                "columns": {"question": "question", "gold": "gold", "id": "id"},
                "verifier": "tests.helpers.hash_verifier:HashVerifier",
            },
            "per_round": 6,
            "held_out_fraction": 0.2,
        },
        "rollout__samples": 4,
        "rollout__max_new_tokens": 16,
        "rollout__verdict_max_new_tokens": 12,
        "rollout__max_prompt_tokens": 1200,
        "recycle": {"judge_quota": None, "reflection_quota": None, "mixed_pairwise_share": 0.7},
        "objective__kinds": "own",
        "learner__minibatch_sequences": 12,
        "learner__learning_rate": 1e-3,
        "objective__beta": 0.01,
        "evaluation__problems": 3,
        "evaluation__every": 4,
        "evaluation__reflections": 1,
        "evaluation__samples": 2,
        "checkpoint__every": 2,
    }
    return load_config("chains", **(settings | overrides))


def fingerprint(run: Path) -> dict[str, Any]:
    """Everything that must be equal between an interrupted and an uninterrupted run: rows, reports, weights, state."""
    reader = RunReader(run)
    rows = {
        name: reader.table(name).drop_columns([c for c in TIMES if c in reader.table(name).column_names]).to_pylist()
        for name in ("problems", "tasks", "rollouts", "recycled", "exclusions", "eval_tasks", "eval_rollouts")
    }
    newest = [info for info in reader.checkpoints if not info.in_progress][-1].path
    tensors = {
        f"{path.name}/{name}": tensor.numpy().tobytes()
        for path in sorted(newest.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    state = {name: json.loads((newest / "state" / name).read_text()) for name in ("learner.json", "trainer.json")}
    return {"rows": rows, "tensors": tensors, "state": state, "round": newest.name}
