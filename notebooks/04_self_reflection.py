# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Self-reflection at test time
#
# The weights that answer can also judge and correct. At test time there is no verifier and no gold answer, only the
# model:
#
#     answer
#     up to two times:   judge the answer;   yes -> keep it;   no -> look again and answer anew
#     judge the last answer as well;   rejected -> go back to the first one
#
# Whether this helps is not obvious. A judge that rejects right answers costs more than it saves. So the table to look
# at is not how many are right in the end, but the four *transitions*: right answers that stayed right, wrong ones
# that were mended, **right ones that were spoilt**, and wrong ones that stayed wrong.
#
# It takes about half a minute on two CPU cores.

# %% tags=["parameters"]
run = "../runs/reflection"  # a run of yours, to see its newest evaluation; made here, untrained, if it is not there
problems = 96  # held-out problems
reflections = 2  # most reflections on a problem
samples = 4  # sampled answers to each problem, for the votes

# %% [markdown]
# ## A run, as it is before its first round
#
# Held-out problems are those whose text hashes into a tenth that no training ever sees.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

import workbench
from spark_kernel import load_config, resume_run, start_run
from workbench.figures import transitions_figure
from workbench.notebook.progress import CellProgress
from workbench.views import RunView

if (Path(run) / "run.json").exists():
    trainer = resume_run(run, listeners=[CellProgress()])
else:
    config = load_config(
        "quickstart",
        rounds=1,
        evaluation__problems=problems,
        evaluation__reflections=reflections,
        evaluation__samples=samples,
    )
    trainer = start_run(config, run, listeners=[CellProgress()])
held_out = trainer.parts.stream.held_out(problems, seed=trainer.config.seed)
print(f"{len(held_out)} held-out problems, the first one: {held_out[0].question}")

# %% [markdown]
# ## The loop, watched
#
# `self_correct` needs an engine, problems and settings; it calls `on_step` with each step. Each prompt is an ordinary
# chat: a judge is shown the question and the answer, a reflection the question and the whole earlier response. Three
# problems, decoded greedily:

# %%
from spark_kernel.rollout.engine import Sampling
from spark_kernel.test_time.loop import self_correct
from spark_kernel.test_time.steps import LoopSettings

rollout = trainer.config.rollout
sampling = Sampling(rollout.max_new_tokens, temperature=0.0, max_prompt_tokens=rollout.max_prompt_tokens)
settings = LoopSettings(solve=sampling, judge=sampling, reflect=sampling, reflections=reflections)


def print_step(step):
    """One line for a step as soon as it is sampled."""
    outcome = f"verdict {step.verdict}" if step.kind.judges else f"answer {step.answer}"
    print(f"problem {step.problem_id}, step {step.index + 1}, {step.kind}: {outcome} ({step.tokens} tokens)")


attempts = self_correct(trainer.parts.engine, held_out[:3], settings, seed=trainer.config.seed, on_step=print_step)

# %% [markdown]
# Steps came stage by stage, because problems are batched. Put together by problem, with what the loop settled on and
# why. The gold answer stands beside it for us; the loop has never seen it.

# %%
for problem, attempt in zip(held_out, attempts, strict=False):
    chain = " -> ".join(step.verdict or step.answer or f"({step.parse})" for step in attempt.steps)
    print(f"{problem.question}\n   {chain}   |   returned: {attempt.final.answer}, gold: {problem.gold}")
    print(f"   {attempt.detail}\n")

# %% [markdown]
# ## Whether it helps: the transition table
#
# `trainer.evaluate()` runs the loop on all held-out problems, among other things, and writes every step to the run's
# folder. The view puts the steps back together.

# %%
if trainer.completed not in trainer.writer.evaluations():
    trainer.evaluate()
trainer.close()
view = RunView(run)
loop = view.self_correction(view.evaluations()[-1])
moved = loop.transitions
display(transitions_figure([loop]))
pd.DataFrame(
    {
        "right in the end": [moved["right_right"], moved["wrong_right"]],
        "wrong in the end": [moved["right_wrong"], moved["wrong_wrong"]],
    },
    index=["right at first", "wrong at first"],
)

# %% [markdown]
# The upper right cell is what the loop destroyed, the lower left one what it mended. Only these two cells speak about
# the loop; their exact McNemar p says how surprising such a split would be if the loop did as much harm as good. With
# few changed answers no p is small, and then the honest result is that nothing can be said.


# %%
def interval(estimate):
    """A share with its 95 % interval."""
    value, low, high = estimate
    return f"{100 * value:.1f} %" + ("" if low is None else f"  [{100 * low:.1f}, {100 * high:.1f}]")


pd.Series(
    {
        "problems": loop.n,
        "first answer right": interval(loop.before),
        "returned answer right": interval(loop.after),
        "difference": interval(loop.difference),
        "McNemar p": loop.mcnemar_p,
        "tokens, first answers alone": loop.tokens_first,
        "tokens, whole loop": loop.tokens,
        "how chains ended": dict(loop.stops),
    },
    dtype=object,
)

# %% [markdown]
# ## The same tokens, spent otherwise
#
# The loop is not free: compare the two token counts. The tokens of its judgements and reflections could have paid for
# further samples, of which the commonest answer is taken (*vote*), or the first that the judge accepts (*best of*),
# or the one with the greatest sum of the judge's probabilities of Yes (*weighted vote*). Each gets what the loop has
# spent, as far as the samples drawn here go.

# %%
lines = view.reader.evaluation(view.evaluations()[-1])["lines"]
methods = {"vote": "majority vote", "best_of": "best of, by verdicts", "weighted_vote": "vote weighted by the judge"}
pd.DataFrame(
    [
        {
            "method": label,
            "right": interval([lines[name]["accuracy"][part] for part in ("value", "low", "high")]),
            "samples of a problem, mean": lines[name]["samples_mean"],
            "tokens": lines[name]["tokens"],
            "of a budget of": lines[name]["budget"],
            "loop minus method": interval([lines[name]["loop"][f"difference{part}"] for part in ("", "_low", "_high")]),
            "McNemar p": lines[name]["loop"]["mcnemar_p"],
        }
        for name, label in methods.items()
        if name in lines
    ]
)

# %% [markdown]
# ## The cases
#
# The panel shows each chain with its prompts and texts. Before training the judge says half of its verdicts at a
# glance, and the table of transitions shows what that costs.

# %%
wb = workbench.open(run)
wb.correction

# %% [markdown]
# As tables, first the answers that were spoilt, since a summary hides them most easily:


# %%
def show(transition):
    """The chains of a cell of the table, a row each."""
    return pd.DataFrame(
        [
            {
                "question": chain.question,
                "gold": chain.gold,
                "steps": " -> ".join(str(step.answer) for step in chain.steps),
                "ended": chain.stop,
            }
            for chain in loop.with_transition(transition)
        ]
    )


show("right_wrong")

# %%
show("wrong_right")

# %% [markdown]
# And the answers that were wrong and stayed so. Where the first verdict says Yes, the judge was fooled; where it says
# No and the answer is still wrong, the correction failed. These are two different weaknesses, and training works on
# both: the first with pointwise tasks, the second with reflection tasks.

# %%
wrong = loop.with_transition("wrong_wrong")
fooled = [chain for chain in wrong if len(chain.steps) > 1 and chain.steps[1].answer == "Yes"]
print(f"{len(wrong)} stayed wrong: at the first look the judge accepted {len(fooled)} of them")
show("wrong_wrong").head(10)
