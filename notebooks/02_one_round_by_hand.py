# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · One round, phase by phase, by hand
#
# A SPARK round is one short story that is told twice. First about problems: sample several answers, score them, make
# new tasks of what was scored, update the model. Then once more about those new tasks. This notebook walks through
# one round with the phases as plain function calls and looks at what each one hands to the next.
#
# Everything a phase makes is a *record*: a frozen object with named fields. Nothing is hidden in the trainer, and
# everything you see here is also written to the run's folder.
#
# The same round without a trainer, a run folder or a way to resume, as one loop that reads from top to bottom, is
# `recipes/spark_loop.py` of the repository.
#
# It takes about ten seconds on two CPU cores.

# %% tags=["parameters"]
run = "../runs/by-hand"  # where the run is written; if it is there already, by-hand-2 and so on
problems = 16  # problems in the round
samples = 8  # answers to each

# %% [markdown]
# ## A trainer, and no training yet
#
# `load_config` takes a preset and any setting that should differ; sections and fields are joined by two underscores.
# `start_run` loads the model, makes the folder and stops there. The model is the small built-in one, so nothing is
# downloaded.

# %%
import pandas as pd

from spark_kernel import RunReader, load_config, start_run
from workbench.notebook.naming import unused_run
from workbench.notebook.progress import CellProgress

config = load_config(
    "quickstart",
    rounds=2,
    problems__per_round=problems,
    rollout__samples=samples,
    recycle__judge_quota=problems,
    recycle__reflection_quota=problems // 2,
    evaluation__every=0,
)
trainer = start_run(config, unused_run(run), listeners=[CellProgress()])
print("Run folder:", trainer.writer.path)
print("Due now:", trainer.due)

# %% [markdown]
# The trainer always knows which phase is due. A call out of order is refused with a sentence, and nothing happens:

# %%
from spark_kernel import PhaseError

try:
    trainer.update()
except PhaseError as refusal:
    print(refusal)

# %% [markdown]
# ## Phase 1: roll out
#
# The next problems are taken from the source and each becomes a *task*: messages for the model, the label its output
# will be compared with, and the name of the verifier that will compare. The model then answers every task `samples`
# times. A task with its answers is a *group*. Groups are the unit of everything that follows, because a single answer
# says little: what can be learnt from is the difference between the answers to the same question.

# %%
groups = trainer.roll_out()
group = groups[0]
print(f"{len(groups)} groups of {len(group.rollouts)} rollouts each\n")
for message in group.task.messages:
    print(f"[{message.role}] {message.text}")

# %% [markdown]
# A rollout keeps more than its text. It has the sampled token ids and the log-probability each of them had when it was
# sampled; the update needs both. `policy_version` says which weights wrote it. There is no score yet.

# %%
rollout = group.rollouts[0]
print(rollout.text)
pd.Series(
    {
        "tokens": len(rollout.token_ids),
        "probability of the whole text": f"{2.718281828 ** sum(rollout.logprobs):.2e}",
        "written by policy version": rollout.policy_version,
        "cut off at the length limit": rollout.truncated,
        "score": rollout.score,
    }
)

# %% [markdown]
# ## Phase 2: verify
#
# A verifier reads the last `\boxed{...}` of every text and compares it with the label. It runs in a process of its
# own with a deadline, since comparing can hang or crash, and then the reward is *null*, not 0.
#
# Within a group, rewards become *advantages*: how much better or worse an answer is than its siblings. If all answers
# of a group are right, or all are wrong, there is nothing to compare and every advantage is 0.

# %%
groups = trainer.verify(groups)
mixed = next((g for g in groups if g.is_mixed), groups[0])
print(mixed.task.messages[-1].text, "\nlabel:", mixed.task.label)
pd.DataFrame(
    {
        "what was read": [r.answer for r in mixed.rollouts],
        "correct": [r.score.correct for r in mixed.rollouts],
        "reward": [r.score.reward for r in mixed.rollouts],
        "advantage": [r.advantage for r in mixed.rollouts],
        "the verifier's reason": [r.score.reason for r in mixed.rollouts],
    }
)

# %% [markdown]
# Mixed groups are the ones that teach. How many of each sort are there?

# %%
import plotly.graph_objects as go

sorts = ["mixed" if g.is_mixed else "all right" if g.correct else "all wrong" for g in groups]
right = sorted(len(g.correct) for g in groups)
figure = go.Figure(go.Bar(x=list(range(1, len(groups) + 1)), y=right, marker_color="#0072B2"))
counted = ", ".join(f"{sorts.count(sort)} {sort}" for sort in ("mixed", "all right", "all wrong"))
figure.update_layout(
    title=f"{len(groups)} groups: {counted}",
    xaxis_title="group, by its right answers",
    yaxis_title=f"right answers of {samples}",
    height=280,
    margin={"t": 50, "b": 40},
)
figure

# %% [markdown]
# **Change something, if you like.** Records are frozen, but a phase works on the groups it is *handed*, so editing them
# in a cell is an experiment like any other. Set `half_marks` to give wrong answers that at least end with a box half a
# reward, and see what the update makes of it. The run folder then holds the groups that were trained on, the round's
# notes say that they were edited by hand, and a resumed run repeats the edited update.

# %%
from dataclasses import replace

from spark_kernel.verify.score_groups import with_advantages

half_marks = False


def half_for_a_box(rollout):
    if rollout.score.correct or rollout.answer is None or rollout.score.reward is None:
        return rollout
    return replace(rollout, score=replace(rollout.score, reward=0.5))


if half_marks:
    edited = [g.with_rollouts(tuple(half_for_a_box(r) for r in g.rollouts)) for g in groups]
    groups = with_advantages(edited, estimator=config.objective.advantage, delta=config.objective.delta)

# %% [markdown]
# ## Phase 3: recycle
#
# Here SPARK leaves ordinary reinforcement learning. A scored answer is a question about correctness whose answer we
# know:
#
# - *pointwise*: here is an answer, is it correct? The label is Yes or No, as the verifier said.
# - *pairwise*: here are two answers, one right and one wrong, which is the right one? The label is A or B.
# - *reflection*: here is your earlier answer, look again and give a final one. The label is the gold answer.
#
# No person writes these labels and no second model does. Recycling comes before the update, because it is about what
# the model *just did*.

# %%
recycled = trainer.recycle(groups)
pd.Series(
    [f"{task.kind}, label {task.label if task.kind.judges else '(gold)'}" for task in recycled.tasks]
).value_counts()

# %% [markdown]
# A recycled task carries where it came from: the rollouts it shows, whether they were right, and which policy wrote
# them. The gold answer is never shown to a judge.

# %%
task = next((t for t in recycled.tasks if t.kind.judges), recycled.tasks[0])
print(task.messages[-1].text)
pd.Series(
    {
        "kind": str(task.kind),
        "label": task.label,
        "made from": ", ".join(task.sources),
        "were they right": ", ".join(map(str, task.source_correct)),
        "shows": str(task.view),
        "template": task.template_id,
    }
)

# %% [markdown]
# Every group offers one judgement and one reflection. Each offer ends as a task or as an *exclusion* with a reason,
# so the account always adds up. Notebook 03 is about these reasons.

# %%
reasons = pd.Series([str(e.reason) for e in recycled.exclusions], dtype=object).value_counts()
print(f"{2 * len(groups)} offers = {len(recycled.tasks)} tasks + {len(recycled.exclusions)} exclusions")
assert 2 * len(groups) == len(recycled.tasks) + len(recycled.exclusions)
reasons

# %% [markdown]
# ## Phase 4: update
#
# The learner turns advantages into a gradient: make the better answers of each group likelier and the worse ones less
# likely. That ends the *policy period*; the policy is now version 1.

# %%
update = trainer.update(groups)
print("policy version", trainer.policy_version)
pd.Series(
    {
        "optimizer steps": update.optimizer_steps,
        "sequences with an advantage": update.sequences,
        "loss": round(update.loss, 4),
        "gradient norm": round(update.grad_norm, 3),
        "learning rate": update.learning_rate,
        "entropy, nats per token": round(update.entropy, 3),
    }
)

# %% [markdown]
# ## The same four phases, on recycled tasks
#
# The *reward period* samples the recycled tasks with the weights that were just updated. The verifier now compares a
# verdict with Yes, No, A or B, and a reflection with the gold answer. Note that the calls are the same ones.

# %%
judging = trainer.verify(trainer.roll_out())
pd.DataFrame(
    [
        {
            "kind": str(g.task.kind),
            "label": g.task.label,
            "what the model said": ", ".join(str(r.answer) for r in g.rollouts),
            "right": f"{len(g.correct)} of {len(g.rollouts)}",
        }
        for g in judging
    ]
).sort_values("kind", kind="stable", ignore_index=True)

# %% [markdown]
# Scored reflections are answers like any others, so they become judge tasks in their turn (*re-evaluation*), which
# wait in a queue for the next round. Verdicts are never recycled again.

# %%
again = trainer.recycle(judging)
trainer.update(judging)
print(f"{len(again.tasks)} tasks made from reflections; {len(trainer.state.queue)} tasks wait in the queue")
print("Due now:", trainer.due)

# %% [markdown]
# ## The report
#
# The last call writes the round down, as a whole or not at all, and makes the next round due.

# %%
report = trainer.report()
pd.DataFrame(
    [
        {
            "period": str(k.period),
            "kind": str(k.kind),
            "made from": str(k.origin),
            "rollouts": k.n,
            "share right": k.accuracy,
        }
        for k in report.kinds
    ]
)

# %% [markdown]
# ## Or in one go
#
# `trainer.round()` does all phases that are left of a round, `trainer.train()` all rounds that are left of a run.
# Both do exactly what you just did.

# %%
trainer.train(rounds=1)
trainer.close()

# %% [markdown]
# Everything is on disk. The panels show it: here the tasks that the round made, each with its way from the answers it
# shows to the update.

# %%
import workbench

wb = workbench.open(trainer.writer.path)
wb.recycled

# %% [markdown]
# Any number can be asked for with SQL; `docs/run-folder.md` lists the tables.

# %%
RunReader(trainer.writer.path).query(
    "SELECT round, period, kind, origin, count(*) AS rollouts, avg(correct::INT) AS share_right "
    "FROM rollouts GROUP BY ALL ORDER BY ALL"
).to_pandas()
