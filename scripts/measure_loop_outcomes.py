"""What the test-time loop makes of new problems, asked as the app asks: the four outcomes, and problems of each.

    python scripts/measure_loop_outcomes.py builtin:starter-2 --preset quickstart --problems 400

The figures beside the app's examples (workbench/app/examples.py) come from here.
"""

from __future__ import annotations

import argparse
import json
import sys

from spark_kernel import load_config
from spark_kernel.evaluate.chains import chain_groups
from spark_kernel.evaluate.intervals import wilson
from spark_kernel.problems.registry import make_source
from spark_kernel.rollout.engine import Sampling
from spark_kernel.test_time.loop import self_correct
from spark_kernel.test_time.steps import LoopSettings
from spark_kernel.verify import VerifierPool
from workbench.app.catalog import ModelChoice
from workbench.app.desk import DEFAULT_NEW_TOKENS, load_respondent
from workbench.app.limits import LOCAL
from workbench.app.question import make_question

FIRST = 5_000_000
"""Number of the first problem: far beyond what training or the makers of the models have drawn."""
OUTCOMES = {
    (True, True): "right before and after", (False, True): "corrected",
    (True, False): "spoilt", (False, False): "wrong before and after",
}  # fmt: skip


def main() -> int:
    """Ask, count, and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a built-in model or a folder")
    parser.add_argument("--preset", default="quickstart", help="whose problems are asked (default quickstart)")
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--show", type=int, default=4, help="problems shown of each outcome (default 4)")
    args = parser.parse_args()
    config = load_config(args.preset)
    source = make_source(config.problems.source, config.problems.options, config.seed)
    drawn = [source.problem(FIRST + i) for i in range(args.problems)]
    # As the page asks: the same ids, so the same draws of templates.
    asked = [make_question(p.question, LOCAL, gold=p.gold, verifier=p.verifier).problem for p in drawn]
    unique = list({problem.id: problem for problem in asked}.values())
    respondent = load_respondent(ModelChoice(args.model, args.model))
    longest = min(DEFAULT_NEW_TOKENS, respondent.context // 2)
    sampling = Sampling(longest, 0.0, max_prompt_tokens=respondent.context - longest)
    attempts = self_correct(respondent.engine, unique, LoopSettings(sampling, sampling, sampling), seed=0)
    found: dict[str, list[dict[str, object]]] = {name: [] for name in OUTCOMES.values()}
    with VerifierPool(1, 5.0) as pool:
        groups = iter(chain_groups(attempts, {p.id: p for p in unique}, pool.score, round=0, policy_version=0))
        for problem, attempt in zip(unique, attempts, strict=True):
            scores = [next(groups).rollouts[0].score for _ in attempt.steps]
            correct = [score is not None and score.correct for score in scores]
            name = OUTCOMES[correct[0], correct[attempt.final.index]]
            said = [step.answer if not step.kind.judges else step.verdict for step in attempt.steps]
            found[name].append({"question": problem.question, "gold": problem.gold, "said": said})
    report = {
        name: {
            "count": len(rows), "share": round(len(rows) / len(unique), 3),
            "interval": [round(bound, 3) for bound in wilson(len(rows), len(unique))],
            "problems": rows[: args.show],
        }
        for name, rows in found.items()
    }  # fmt: skip
    print(json.dumps({"model": args.model, "problems": len(unique), **report}, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
