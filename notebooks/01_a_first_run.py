# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · A first run in five minutes
#
# SPARK trains one language model in two roles: it answers problems, and it judges its own answers. This notebook
# first opens a run that was recorded earlier, so that you see at once what there is to look at. Then it trains a few
# rounds of its own.
#
# Nothing is downloaded and no GPU is needed: the model is a very small one that ships with the package. It solves
# small puzzles ("make 17 out of 5, 8 and 4") and judges answers, half of the time by putting them in and half of the
# time at a glance. Opening the recorded run takes a second or two, training about a minute on two CPU cores.

# %% tags=["parameters"]
run = "../runs/first-run"  # where the new run is written; if it is there already, it is opened and goes on
rounds = 6  # to train
problems = 32  # new problems a round
held_out = 32  # problems of the evaluations before and after

# %% [markdown]
# ## A recorded run
#
# `workbench.open` shows the panels of a run folder. Everything in them is read from the folder, so they look the same
# for a run of last week, for one that another process is writing at this moment, and for one that you train from
# here.

# %%
import workbench
from workbench.recorded import recorded_run

recorded = workbench.open(recorded_run())
recorded

# %% [markdown]
# The panels can also be used one at a time. The dashboard begins with three numbers, each on held-out problems with
# its interval: how many the model solves, **how well it judges its own answers**, and how many are right after it has
# judged and corrected itself. The figure below them has the same three over rounds, with the line of chance for the
# judge (*balanced accuracy*: a judge that always says No reaches 50 %). Further down, each kind of task by itself.

# %%
recorded.dashboard

# %% [markdown]
# Select a round, then look at single outputs: what was asked, what the model wrote, what the verifier read, and what
# the model as a judge said about it later. Try the filter "wrong, but accepted"; arrows or j and k move the row.

# %%
recorded.rollouts

# %% [markdown]
# ## A run of your own
#
# `workbench.new` prepares a run from a preset; nothing is loaded or written until it starts. Each setting can be
# changed, by keyword here or in the form of the panel *Configuration*.

# %%
from pathlib import Path

if (Path(run) / "run.json").exists():
    wb = workbench.open(run)
else:
    wb = workbench.new(
        "quickstart",
        run,
        rounds=rounds,
        problems__per_round=problems,
        recycle__judge_quota=2 * problems,
        recycle__reflection_quota=problems,
        evaluation__every=rounds,
        evaluation__problems=held_out,
        evaluation__samples=2,
    )
wb.configuration

# %% [markdown]
# ## Start it
#
# The buttons below start the work in the background: their cell is done at once, and you can go on reading while the
# run goes on. *Next phase* does one step of a round, *Train* as many rounds as you say. *Stop* takes effect within
# moments, keeps what is done and writes a checkpoint, from which *Resume* goes on as if nothing had happened.

# %%
wb.controls

# %% [markdown]
# The next cell does the same in the blocking way, for those who run the notebook from top to bottom: it waits until
# the rounds are done. Interrupting the kernel stops it as the button does.

# %%
from spark_kernel import RunReader

done = len(RunReader(wb.run).rounds) if (wb.run / "run.json").exists() else 0
if done < rounds:
    wb.train(rounds - done)
wb.dashboard

# %% [markdown]
# ## Did it learn?
#
# After a few rounds on half of the quickstart's problems: a little, and the intervals say how sure that is. The table
# has the accuracy of answers and of judgements on held-out problems before and after. Between two wide intervals one
# should not see a trend. The whole quickstart, five seeds of it, is in `docs/results/quickstart.md`.

# %%
import pandas as pd

from workbench.reporting.figure_rows import held_out_rows, show_figure

reader = RunReader(wb.run)
evaluations = {round: reader.evaluation(round) for round in reader.evaluations}
pd.DataFrame(
    {label: [show_figure(figure) for figure in figures] for label, figures in held_out_rows(evaluations)},
    index=[f"after round {round}" for round in evaluations],
).T

# %% [markdown]
# How the judge did on the rollouts of each round of training, by kind of task, with the share that is reached by
# always giving the more frequent verdict:

# %%
reader.query(
    "SELECT round, kind, origin, n, accuracy, judge['chance'] AS chance, judge['yes_rate'] AS yes_rate, unparseable "
    "FROM kind_stats WHERE kind IN ('pointwise', 'pairwise') ORDER BY round, kind, origin"
).to_pandas()

# %% [markdown]
# ## Let go
#
# One process writes a run. Closing lets it go, so that the command line or another notebook can go on with it:
# `workbench resume ../runs/first-run`.

# %%
wb.close()
recorded.close()

# %% [markdown]
# Next: **02** takes one round apart.
