# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Which objective does what: arms and ablations
#
# SPARK adds several things to plain reinforcement learning at once. Which of them does what? The way to find out is
# to leave one out at a time and to compare at equal cost. The paper's four *arms*:
#
# | arm | trained on |
# | --- | --- |
# | `policy-only` | problems (GRPO) |
# | `reward-only` | judge tasks made of its own answers |
# | `policy-and-reward` | both |
# | `spark` | both, and reflections |
#
# Three rules make such a comparison worth something, and all three are easy to break:
#
# 1. **Equal cost.** A SPARK round samples about twice as much as a policy-only round. Rounds are no fair scale;
#    rollouts or optimizer steps are. Here every arm gets the same number of rollouts.
# 2. **Paired problems.** All arms are tested on the same held-out problems, and what is compared is the difference on
#    each problem, so that easy and hard problems do not blur it.
# 3. **Intervals, and several seeds.** One seed says little. The interval below covers the choice of held-out
#    problems, *not* the chance in training.
#
# **What to expect at this size: nothing certain.** With default parameters each arm trains a few rounds with one
# seed, and most rows will end in "not enough evidence". That is the right answer for a few minutes of computing. What
# the arms do in a longer run is in `docs/results/quickstart.md`. The defaults take about two minutes on two CPU
# cores.

# %% tags=["parameters"]
folder = "../runs/arms"  # one run folder per arm and seed; finished runs are not repeated
rollouts = 12_288  # of every arm
samples = 8
problems = 32  # new problems in a round of the arms that also recycle
held_out = 64  # held-out problems to compare on
seeds = [0]
ablations = []  # for example ["no re-evaluation", "judge sees the answer only"]

# %% [markdown]
# ## The arms
#
# An arm is a preset laid over another. How many rollouts a round costs depends on the arm, so each gets its own
# number of problems and rounds: policy-only takes twice as many problems, because it recycles none.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display
from tqdm.auto import tqdm

from spark_kernel import RunReader, load_config, resume_run, start_run
from workbench.notebook.progress import CellProgress
from workbench.views import compare

ABLATIONS = {
    "no re-evaluation": {"recycle__re_evaluation": False},
    "judge sees the answer only": {"recycle__judge_view": "answer"},
    "no balance": {"recycle__balance_pointwise": False},
    "reflect on wrong answers only": {"recycle__reflection_correct_share": 0.0},
    "one update a round": {"period__order": "joint"},
}


def settings(arm, seed):
    """The configuration of an arm: the same rollouts a round, whatever they are spent on."""
    preset, changes = ("quickstart+spark", ABLATIONS[arm]) if arm in ABLATIONS else (f"quickstart+{arm}", {})
    recycles = arm != "policy-only"
    reflects = recycles and arm not in ("reward-only", "policy-and-reward")
    return load_config(
        preset,
        seed=seed,
        rounds=max(1, rollouts // (2 * problems * samples)),
        rollout__samples=samples,
        problems__per_round=problems if recycles else 2 * problems,
        recycle__judge_quota=problems - problems // 4 if reflects else problems,
        recycle__reflection_quota=problems // 4 if reflects else 0,
        learner__minibatch_sequences=min(128, problems * samples),
        evaluation__every=0,
        evaluation__problems=held_out,
        evaluation__samples=2,
        **changes,
    )


arms = ["policy-only", "reward-only", "policy-and-reward", "spark", *ablations]
pd.DataFrame(
    {
        arm: {
            "rounds": settings(arm, 0).rounds,
            "problems a round": settings(arm, 0).problems.per_round,
            "judge tasks a round": settings(arm, 0).quotas.judge if arm != "policy-only" else 0,
            "reflections a round": settings(arm, 0).quotas.reflection if arm != "policy-only" else 0,
        }
        for arm in arms
    }
).T

# %% [markdown]
# ## Training them
#
# One after the other, each from the same initial model, each evaluated once at its end. An interrupt of the kernel
# stops at the next safe point and keeps what is done; run the cell again to go on.


# %%
def train(arm, seed):
    """A trained and evaluated run of an arm; what exists is not done again."""
    run = Path(folder) / f"{arm.replace(' ', '-')}-{seed}"
    if run.exists() and RunReader(run).evaluations:
        return run
    exists = (run / "run.json").exists()
    bar = [CellProgress()]
    with resume_run(run, listeners=bar) if exists else start_run(settings(arm, seed), run, listeners=bar) as trainer:
        trainer.train()
        if trainer.stopped:
            raise KeyboardInterrupt("stopped; run this cell again to go on")
        trainer.evaluate()
    return run


runs = {}
for arm, seed in tqdm([(arm, seed) for seed in seeds for arm in arms], desc="runs"):
    print(f"--- {arm}, seed {seed}")
    runs[arm, seed] = train(arm, seed)
readers = {key: RunReader(run) for key, run in runs.items()}

# %% [markdown]
# ## Was the cost equal?
#
# Check it, before looking at any result.

# %%
cost = {}
for (arm, seed), reader in readers.items():
    reports = reader.reports()
    cost[f"{arm}, seed {seed}"] = {
        "rollouts": sum(line.n + line.missing for report in reports for line in report.kinds),
        "optimizer steps": sum(update.optimizer_steps for report in reports for update in report.updates),
        "seconds": round(sum(sum(report.seconds_by_phase.values()) for report in reports)),
    }
pd.DataFrame(cost).T

# %% [markdown]
# Rollouts may differ by a few per cent: the first rounds of an arm that recycles find fewer tasks than there are
# places. If they differ by more, the rows below mean little. Reward-only also pays for the answers that it judges,
# and does not train on them: it takes half the optimizer steps. (`workbench compare` is stricter: it takes the last
# evaluations within a budget that both runs reached, and so needs runs that are evaluated often.)
#
# ## Each arm by itself
#
# Shares on the held-out problems after training, with 95 % intervals that are clustered by problem.

# %%
comparisons = {seed: compare([readers[arm, seed] for arm in arms]) for seed in seeds}


def share(point):
    """A share in percent with its interval."""
    if point.value is None:
        return "-"
    interval = "" if point.low is None else f" [{100 * point.low:.0f}, {100 * point.high:.0f}]"
    return f"{100 * point.value:.0f}{interval}"


points = [point for found in comparisons.values() for point in found.points]
pd.DataFrame([{"measure": point.measure, "run": point.run, "percent": share(point)} for point in points]).pivot(
    index="measure", columns="run", values="percent"
).fillna("-")

# %% [markdown]
# Intervals that overlap do not prove that two arms are equal, and a gap between them does not measure the difference.
# For that, look at pairs.
#
# ## Each arm against policy-only, problem by problem
#
# The held-out problems are drawn again and again, with replacement, and both arms are recomputed on each draw (a
# *paired cluster bootstrap*). The verdict is given by a rule, not by eye: the 95 % interval of the difference must
# leave out zero, and must rest on at least ten problems.

# %%
from spark_kernel.evaluate.compare import conclusion, paired_bootstrap
from workbench.views.comparison import MEASURES, run_result

rows = []
for seed in seeds:
    cells = {arm: run_result(readers[arm, seed], arm).checkpoints[-1].cells for arm in arms}
    for measure, label in MEASURES:
        for arm in arms[1:]:
            if measure in cells[arms[0]] and measure in cells[arm]:
                found = paired_bootstrap(cells[arms[0]][measure], cells[arm][measure], seed=seed, measure=measure)
                rows.append({"measure": label, "arm": arm, "seed": seed, "finding": conclusion(arms[0], arm, found)})
with pd.option_context("display.max_colwidth", None):
    display(pd.DataFrame(rows))

# %% [markdown]
# A dozen or more rows at a level of 95 % give a false alarm by chance every second time or so. Do not pick the best
# row: decide before training which one you care about. For most people that is *judges its own answers, balanced
# accuracy*, the thing that SPARK is meant to add.
#
# ## Only the settings that differ

# %%
pd.DataFrame(
    {row.setting: row.values for row in comparisons[seeds[0]].settings},
    index=comparisons[seeds[0]].names,
).T

# %% [markdown]
# ## A longer look
#
# More rollouts, more seeds and single ablations are a matter of the parameters at the top:
#
#     rollouts = 50_000
#     seeds = [0, 1, 2]
#     ablations = ["no re-evaluation", "one update a round"]
#
# That is hours on two cores. `scripts/compare_arms.py` does two arms over several seeds side by side from the command
# line.
