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
# 1. **Equal cost.** A SPARK round samples about twice as much as a policy-only round. So there are four answers to
#    "at equal what?": rounds (the paper's), rollouts, tokens, seconds.
# 2. **Paired problems.** Arms are tested on the same held-out problems, and what is compared is the difference on
#    each problem, so that easy and hard problems do not blur it.
# 3. **Several seeds.** Training with another seed ends elsewhere. The interval over seeds and problems holds both
#    chances; with one seed it holds that of the problems only, and says so.
#
# An *experiment file* states all this, and `workbench experiment` runs it: arms x seeds side by side, started again
# where it was stopped, with a page at its end. This notebook does the same from Python, with the shipped file `arms`.
#
# **What to expect at this size: nothing certain.** With default parameters each arm trains a few rounds with one
# seed, and most rows will end in "not shown by this evidence". That is the right answer for a few minutes of
# computing. What the arms do in a longer run is in `docs/results/chains.md`.

# %% tags=["parameters"]
folder = "../runs/arms"  # runs, logs and page; finished runs are not repeated
experiment = "arms"  # one that ships (`workbench experiment --list`), or a .yaml file of your own
settings = {  # of every arm, over those of the file
    "rounds": 4,
    "problems": {"per_round": 32},
    "recycle": {"judge_quota": 24, "reflection_quota": 8},
    "learner": {"minibatch_sequences": 64},
    "evaluation": {"every": 2, "problems": 64, "samples": 2},
}
seeds = [0]
arms = None  # only some of the file's; None: all
jobs = None  # runs side by side; None: as many as there are cores

# %% [markdown]
# ## The plan
#
# An arm is a preset laid over another, and settings. The file says `until: rollouts`: each arm trains until it has
# sampled as much as the arm that samples most, so that policy-only gets about twice as many rounds.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import SVG, Markdown, display

from workbench.experiment.plan import load_experiment, rollouts_of_round

plan = load_experiment(experiment, seeds=seeds, arms=arms, settings=settings)
pd.DataFrame(
    {
        arm: {
            "rounds": cells[0].config.rounds,
            "rollouts": sum(rollouts_of_round(cells[0].config, n) for n in range(1, cells[0].config.rounds + 1)),
            "evaluated every": cells[0].config.evaluation.every,
        }
        for arm in plan.file.arms
        if (cells := plan.cells_of(arm))
    }
).T

# %% [markdown]
# ## The runs
#
# Each in a process of its own with a log of its own. An interrupt of the kernel stops every run at its next safe
# point and keeps what is done; run the cell again to go on. A run that fails is named and ends no other.

# %%
from spark_kernel.training.interrupt import stops_on_signals
from workbench.experiment.running import Laboratory, Outcome

laboratory = Laboratory(plan, Path(folder), jobs)
with stops_on_signals(laboratory.stop):
    results = laboratory.run()
pd.DataFrame([{"run": one.cell.name, "stands": str(one.outcome), "detail": one.detail} for one in results])

# %% [markdown]
# ## Each arm against the reference
#
# At an equal amount each run stands with its last evaluation within what both reached. A verdict is given by a rule,
# not by eye: the 95 % interval of the difference must leave out zero, and must rest on at least ten problems.

# %%
from workbench.experiment.findings import find
from workbench.experiment.measures import MEASURES
from workbench.experiment.report import write_report

finished = {one.cell.name: laboratory.run_of(one.cell) for one in results if one.outcome is Outcome.FINISHED}
findings = find(plan, finished)
rows = [
    {"measure": MEASURES[row.measure].label, "arm": row.arm, "at equal": str(row.match), "finding": row.sentence}
    for row in findings.rows
]
with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
    display(pd.DataFrame(rows))

# %% [markdown]
# Dozens of rows at a level of 95 % give some false alarms by chance. Do not pick the best row: decide before training
# which one you care about. The file names it as `primary`; here it is *judges its own answers, balanced accuracy*,
# the thing that SPARK is meant to add.
#
# ## Its curves
#
# The mean over seeds, with a band from the lowest to the highest seed (with one seed: 95 % over problems).

# %%
from workbench.experiment.curves import curve_svg, legend_svg

names = list(plan.file.arms)
primary = plan.file.primary
SPACE = 'xmlns="http://www.w3.org/2000/svg" style="background:white" width="460"'
if primary in findings.curves:
    for match in plan.file.match:
        picture = curve_svg(findings.curves[primary], names, match, MEASURES[primary].label)
        display(SVG(picture.replace("<svg ", f"<svg {SPACE} ", 1)))
display(SVG(legend_svg(names).replace("<svg ", f"<svg {SPACE} ", 1)))

# %% [markdown]
# ## The page
#
# The same as one file without scripts, beside it Markdown, JSON and Parquet: what `workbench experiment` leaves.

# %%
write_report(findings, results, Path(folder), f"workbench experiment {experiment} --out {folder}")
Markdown(f"[{Path(folder) / 'index.html'}]({Path(folder) / 'index.html'})")

# %% [markdown]
# ## A longer look
#
# Without the small settings above this is hours on two cores, and best started from a terminal:
#
#     workbench experiment arms
#     workbench experiment kinds --seeds 0 1 2
#
# `workbench experiment --list` names the others: every kind of task alone and left out, the authors' choices against
# the defaults, what a judge sees, label noise, judging first, and pairs against single judgements.
