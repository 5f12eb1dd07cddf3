# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · Your own problems, verifier and model
#
# A run needs three things from you: problems with a known answer, a way to tell whether an answer is right, and a
# model. All three can be your own without touching this project's code. Here each is made from scratch, small and
# complete, so that you can replace them one at a time.
#
# It takes about ten seconds on two CPU cores.

# %% tags=["parameters"]
folder = "../runs/own"  # problems, verifier, model and run are put here
count = 200  # problems in the file
per_round = 16
rounds = 2

# %% [markdown]
# ## Problems: a file with a line for each
#
# JSON Lines with `question` and `gold` are enough; CSV, Parquet and data sets of the hub work as well, with images
# where there are any (`docs/problems.md`). An `id` helps you to find a problem again. Here we write a file of
# shopping sums; yours will come from somewhere else.

# %%
import json
import random
import sys
from pathlib import Path

import pandas as pd

from spark_kernel import InputError, load_config, start_run
from workbench.notebook.naming import unused_run
from workbench.notebook.progress import CellProgress
from workbench.views import RunView

home = Path(folder)
home.mkdir(parents=True, exist_ok=True)
draw = random.Random(0)
lines = []
for number in range(count):
    start, more, less = draw.randint(20, 40), draw.randint(2, 20), draw.randint(2, 20)
    question = f"Start with {start}, add {more}, then take away {less}. What do you get?"
    lines.append({"id": f"sum-{number}", "question": question, "gold": str(start + more - less)})
unique = {line["question"]: line for line in lines}.values()
(home / "problems.jsonl").write_text("\n".join(map(json.dumps, unique)) + "\n", encoding="utf-8")
pd.DataFrame(unique).head(3)

# %% [markdown]
# ## A verifier: a class with two methods
#
# `score` gets an output and gives a reward between 0 and 1, says what it read and whether that is correct.
# `check_gold` is asked before training about every problem, so that a gold answer that cannot be compared is found in
# the first second and not in the tenth round.
#
# This one is *graded*: full reward for the right number, a little for being off by one. Whether that is a good idea
# is up to you. Two things follow from it. The advantage goes by the reward, so near misses are preferred over far
# ones. Recycling goes by `correct`, which takes the full reward, so a near miss is still a wrong answer to the judge.
#
# The class has to live in a module that can be imported, because it runs in worker processes, with a deadline for each
# output. So it is written to a file.

# %%
verifier = '''
"""A graded verifier: one point for the right number, a fifth for being off by one."""

from spark_kernel.prompts.verdicts import read_answer
from spark_kernel import Parse, ProblemError, Score


class NearlyRight:
    """Scores whole numbers in the last box of an output."""

    def score(self, request):
        answer = read_answer(request.output)
        try:
            distance = abs(int(answer or "") - int(request.task.label))
        except ValueError:
            return Score(0.0, False, Parse.NONE, reason="no whole number in a box")
        if distance == 0:
            return Score(1.0, True, Parse.OK, answer)
        return Score(0.2 if distance == 1 else 0.0, False, Parse.OK, answer, f"off by {distance}")

    def check_gold(self, problem):
        try:
            int(problem.gold)
        except ValueError:
            raise ProblemError(f"Problem {problem.id}: the gold {problem.gold!r} is no whole number.") from None
'''
(home / "shop_verifier.py").write_text(verifier.lstrip(), encoding="utf-8")
sys.path.insert(0, str(home.absolute()))  # an installed package of yours needs no such line

# %% [markdown]
# Try a verifier by itself before you train with it. A pool runs it as training does, in worker processes. The last
# output below has no box at all.

# %%
from spark_kernel import Problem, VerifyRequest
from spark_kernel.prompts.build import solve_task
from spark_kernel.verify.pool import VerifierPool

problem = Problem(id="try", question="What is 20 plus 3?", gold="23", verifier="shop_verifier:NearlyRight")
task = solve_task(problem, seed=0, round=1)
outputs = [r"20 + 3 = 23, so \boxed{23}", r"\boxed{24}", r"\boxed{50}", "It is 23."]
with VerifierPool(1, 5.0, 1.0) as pool:
    scores = pool.score([VerifyRequest(output, problem, task) for output in outputs])
pd.DataFrame(
    [
        {"output": o, "reward": s.reward, "correct": s.correct, "read": s.answer, "reason": s.reason}
        for o, s in zip(outputs, scores, strict=True)
    ]
)

# %% [markdown]
# ## A model: any Hugging Face folder
#
# `model.path` takes a hub id, a folder, or a name that `workbench models list` shows. A folder is what
# `save_pretrained` writes. Here the built-in model is saved to one, in place of a model of yours; checkpoints of runs
# are such folders, too.

# %%
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_kernel.models.load import resolve_model
from workbench.commands import quiet_transformers

quiet_transformers()
source = resolve_model("builtin:starter")
model_folder = home / "model"
AutoModelForCausalLM.from_pretrained(source).save_pretrained(model_folder)
AutoTokenizer.from_pretrained(source).save_pretrained(model_folder)
sorted(path.name for path in model_folder.iterdir())

# %% [markdown]
# ## All three together
#
# Everything about a run is in its configuration, and a mistake in it is one sentence before anything is loaded:

# %%
settings = {
    "rounds": rounds,
    "model__path": str(model_folder),
    "problems": {
        "source": "files",
        "options": {"path": str(home / "problems.jsonl"), "verifier": "shop_verifier:NearlyRight"},
        "per_round": per_round,
        "held_out_fraction": 0.1,
    },
    "recycle__judge_quota": per_round,
    "recycle__reflection_quota": per_round // 2,
    "evaluation__every": 0,
}
try:
    load_config("quickstart", **settings, rollout__sample=8)
except InputError as refusal:
    print(refusal)

# %%
config = load_config("quickstart", **settings)
run = unused_run(home / "run")
with start_run(config, run, listeners=[CellProgress()]) as trainer:
    trainer.train()

# %% [markdown]
# The rewards are graded now. How often did each occur, and what became of near misses in the judge's tasks?

# %%
view = RunView(run)
view.reader.query(
    "SELECT reward, correct, count(*) AS outputs, min(reason) AS example FROM rollouts WHERE kind = 'solve' "
    "GROUP BY ALL ORDER BY reward DESC"
).to_pandas()

# %%
view.reader.query(
    "SELECT t.label, s.reward AS reward_of_the_judged_answer, count(*) AS tasks FROM recycled t "
    "JOIN rollouts s ON s.id = t.sources[1] WHERE t.kind = 'pointwise' GROUP BY ALL ORDER BY ALL"
).to_pandas()

# %% [markdown]
# ## A bad file stops the run before it starts
#
# Broken records are refused with file, line and reason. To leave them out instead, set `problems.on_bad_problem` to
# `skip`; each then becomes an exclusion, so that you still see how many there were.

# %%
bad = home / "bad.jsonl"
bad.write_text((home / "problems.jsonl").read_text() + '{"id": "x", "question": "How many?", "gold": "a few"}\n')
options = {"path": str(bad), "verifier": "shop_verifier:NearlyRight"}
try:
    start_run(
        load_config("quickstart", **(settings | {"problems": settings["problems"] | {"options": options}})),
        home / "never",
    )
except InputError as refusal:
    print(refusal)

# %% [markdown]
# ## Where to go from here
#
# - In a package of your own, register the verifier under a short name through an entry point (`CONTRIBUTING.md`).
#   Problem sources that make problems as they go, and recycling rules, are registered the same way.
# - `workbench run my.yaml` does the same from the command line; `config.to_yaml()` prints the file.
