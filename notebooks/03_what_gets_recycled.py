# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · What gets recycled, and what is lost
#
# Most of what a round samples never becomes a training signal twice. A group may offer no usable answer, a label may
# be in surplus, a task may wait too long. If such losses go unseen, a run can look healthy while its judge is trained
# on a handful of one-sided questions. So nothing is dropped silently here: every opportunity ends as exactly one task
# or as one *exclusion* with a reason, and the counts can be added up.
#
# This notebook makes a short run and follows its answers: the funnel, the balance of labels, the reasons, and one
# task from the answers it was made of to the update it went into. It takes about ten seconds on two CPU cores.

# %% tags=["parameters"]
run = "../runs/recycling"  # made here if it is not there yet; any other run can be looked at as well
rounds = 3
problems = 32  # problems a round

# %%
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from IPython.display import display

import workbench
from spark_kernel import load_config, start_run
from workbench.figures import funnel_figure
from workbench.notebook.progress import CellProgress
from workbench.views import RunView
from workbench.views.words import reason_words

pd.set_option("display.max_colwidth", None)  # reasons are read whole

if not (Path(run) / "run.json").exists():
    config = load_config(
        "quickstart",
        rounds=rounds,
        problems__per_round=problems,
        recycle__judge_quota=problems // 2,
        recycle__reflection_quota=problems // 4,
        evaluation__every=0,
    )
    with start_run(config, run, listeners=[CellProgress()]) as trainer:
        trainer.train()

view = RunView(run)
shown = view.reader.rounds
print(f"{view.snapshot().state_line}; rounds {shown}")

# %% [markdown]
# ## The funnel
#
# Every scored group of answers offers one judgement and one reflection. Read the table from top to bottom: what
# entered each step, what left it and why, and what went on to the next. In this run the quotas are set low on
# purpose, so that something has to give.

# %%
funnel = view.funnel(shown)


def as_table(steps):
    """The steps of a funnel, a row each."""
    return pd.DataFrame(
        [
            {
                "step": step.name,
                "entered": step.entered,
                "left, and why": ", ".join(f"{n} {reason_words(reason)}" for reason, n in step.left.items()) or "none",
                "went on": step.remained,
                "counted in": step.unit,
            }
            for step in steps
        ]
    )


for step in funnel.steps:
    assert step.entered == sum(step.left.values()) + step.remained
display(funnel_figure(funnel))
as_table(funnel.steps)

# %% [markdown]
# ## The reasons, one by one
#
# The exclusions table has a row for everything that was left out, with the stage that did it. The same reason can mean
# different things at different stages, so the two are shown together. `docs/recycling.md` explains each reason.

# %%
view.reader.query(
    "SELECT stage, reason, kind, count(*) AS n FROM exclusions GROUP BY ALL ORDER BY n DESC, stage, reason"
).to_pandas()

# %% [markdown]
# ## Balance
#
# If each group were asked about one of its answers by the toss of a coin, a policy that is mostly wrong would make
# mostly tasks with the label No ("before"), and a judge that always says No would look good and learn nothing. So the
# labels are balanced ("after"): mixed groups can be asked about a right or about a wrong answer and take whichever
# label is short, which loses nothing; only what is still in surplus is left out (reason *balance* above). After it the
# two labels differ by one at most, unless a round has too few answers of one sort.

# %%
reports = view.reader.reports()
balance = pd.DataFrame(
    [
        {
            "round": report.round,
            "Yes before": report.balance_before.get("Yes", 0),
            "No before": report.balance_before.get("No", 0),
            "Yes after": report.balance_after.get("Yes", 0),
            "No after": report.balance_after.get("No", 0),
        }
        for report in reports
    ]
).set_index("round")
figure = go.Figure(
    [
        go.Bar(name=name, x=[f"round {n}" for n in balance.index], y=balance[name], marker_color=colour, opacity=faint)
        for name, colour, faint in (
            ("Yes before", "#009E73", 0.4),
            ("Yes after", "#009E73", 1.0),
            ("No before", "#D55E00", 0.4),
            ("No after", "#D55E00", 1.0),
        )
    ]
)
figure.update_layout(title="Pointwise tasks by label", yaxis_title="tasks", height=300, margin={"t": 50, "b": 30})
display(figure)
balance

# %% [markdown]
# Which position the right candidate takes in a pair is a fair coin, for the same reason: a judge with a taste for the
# letter A should not be paid for it.

# %%
view.reader.query(
    "SELECT round, kind, label, count(*) AS tasks FROM recycled WHERE kind != 'reflection' GROUP BY ALL ORDER BY ALL"
).to_pandas()

# %% [markdown]
# ## What became of the tasks of one round
#
# A task that was made is *sampled* in this round or the next, or *excluded* (too old, for example), or still
# *waiting*. The queue takes tasks from mixed groups first.

# %%
rows = pd.DataFrame(
    [
        {
            "kind": row.kind,
            "made from": row.origin,
            "label": row.label if row.kind != "reflection" else "(gold)",
            "from a mixed group": row.from_mixed_group,
            "fate": row.fate if row.fate_round is None else f"{row.fate} in round {row.fate_round}",
            "why": row.reason,
            "right": f"{row.right} of {row.outputs}" if row.outputs else "",
        }
        for row in view.recycled(shown[0])
    ]
)
rows

# %% [markdown]
# ## One task, from its sources to the update
#
# The panel does this by a click: choose a row, and read its way below the table.

# %%
wb = workbench.open(run)
wb.recycled

# %% [markdown]
# The same by hand. Pick a task that was sampled. Its *lineage* holds the exact prompt, the answers it shows and whether
# they were right, what the model said about them, and which outputs the update used.

# %%
sampled = [row for row in view.recycled(shown[0]) if row.fate == "sampled"]
chosen = next((row for row in sampled if row.kind == "pointwise" and 0 < row.right < row.outputs), sampled[0])
lineage = view.lineage(chosen.id, chosen.made_round)
print("Question:", lineage.question, "\nGold, which the judge never sees:", lineage.gold)
for source in lineage.sources:
    place = f"{source.position}: " if source.position else ""
    print(f"\nShown answer {place}{source.answer}, right: {source.correct}, by policy version {source.policy_version}")
print("\n--- the prompt")
for role, text in lineage.messages:
    print(f"[{role}] {text}")

# %%
print("Label:", chosen.label)
pd.DataFrame(
    [
        {
            "said": output.answer,
            "right": output.correct,
            "advantage": output.advantage,
            "in the update": output.in_update,
            "left out because": output.left_out,
        }
        for output in lineage.outputs
    ]
)

# %% [markdown]
# Outputs with the same reward as all their siblings teach nothing and are left out of the loss; that is the reason
# *zero_variance*. The update that the others went into:

# %%
pd.Series(dict(lineage.update), dtype=object)

# %% [markdown]
# And what the policy answered to the same problem, by policy version. With one round on each problem this is usually a
# short table; in a long run on a small set of problems it shows what was learnt.

# %%
pd.DataFrame(
    [
        {
            "policy version": at.policy_version,
            "round": at.round,
            "kind": at.kind,
            "right": f"{at.right} of {at.n}",
            "commonest answer": at.commonest,
        }
        for at in lineage.answers
    ]
)
