"""One rule for prompts that do not fit, in training, evaluation and the test-time loop: left out, with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spark_kernel.config.sections import EvaluationSection, RolloutSection
from spark_kernel.evaluate.held_out import evaluate_held_out
from spark_kernel.records import ExclusionReason, Kind
from spark_kernel.rollout.roll_out import prompt_limit
from spark_kernel.runs.reader import RunReader
from spark_kernel.test_time.steps import Stop
from spark_kernel.training.lifecycle import start_run
from tests.helpers.runs import tiny_config
from tests.helpers.scripted_engine import LocalScorer, ScriptedEngine, sum_problem


def test_the_rule() -> None:
    lengths = RolloutSection(max_prompt_tokens=100, max_new_tokens=50, verdict_max_new_tokens=10)
    assert prompt_limit(lengths, Kind.SOLVE, None) == 100
    assert prompt_limit(lengths, Kind.SOLVE, 1000) == 100
    assert prompt_limit(lengths, Kind.SOLVE, 120) == 70
    assert prompt_limit(lengths, Kind.POINTWISE, 105) == 95
    assert prompt_limit(lengths, Kind.REFLECTION, 105) == 55


@pytest.mark.parametrize("context", [None, 40])
def test_an_evaluation_knows_the_context(context: int | None) -> None:
    """A prompt has as many tokens as words here: about 15 to solve, 25 to judge, 35 to judge two or to reflect."""
    lengths = RolloutSection(max_new_tokens=12, max_prompt_tokens=1000)
    engine = ScriptedEngine(lambda prompt, seed: rf"it is \boxed{{{seed % 3}}}")
    found = evaluate_held_out(
        engine,
        LocalScorer(),
        [sum_problem(i) for i in range(3)],
        lengths,
        EvaluationSection(reflections=1),
        seed=0,
        round=0,
        context_length=context,
    )
    longest = max(
        count + sampling.max_new_tokens for prompts, sampling in engine.calls for count in engine.count_tokens(prompts)
    )
    too_long = [e for e in found.exclusions if e.reason is ExclusionReason.PROMPT_TOO_LONG]
    if context is None:
        assert (longest > 40, too_long) == (True, [])
        return
    assert longest <= context
    assert too_long
    assert all(e.detail.endswith(" tokens, 28 fit") for e in too_long)
    assert any(attempt.stop is Stop.PROMPT_TOO_LONG for attempt in found.attempts)
    assert {group.task.kind for groups in found.groups.values() for group in groups} >= {Kind.SOLVE}


@pytest.mark.slow
def test_a_run_whose_judge_prompts_exceed_the_context_trains_and_is_evaluated(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, rounds=1, evaluation__every=1)
    described = tmp_path / "model" / "config.json"
    values = json.loads(described.read_text()) | {"max_position_embeddings": 200}
    described.write_text(json.dumps(values), encoding="utf-8")
    with start_run(config, tmp_path / "run") as trainer:
        trainer.train()
    reader = RunReader(tmp_path / "run")
    for name in ("exclusions", "eval_exclusions"):
        kinds = {row["kind"] for row in reader.table(name).to_pylist() if row["reason"] == "prompt_too_long"}
        assert kinds & {"pairwise", "reflection"}
    assert reader.evaluation(1)["lines"]["loop"]["n"] == 3
