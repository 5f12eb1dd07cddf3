"""What the tests of both vLLM engines share: prompts, updates of a policy, comparisons, whole runs that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spark_kernel.models.policy import Policy
from spark_kernel.models.published_weights import PublishedWeights, Wanted
from spark_kernel.models.publishing import publish_weights
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import ImagePart, Message, TextPart
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.runs.reader import RunReader
from tests.helpers.cli import COMMAND, environment

QUESTION = "What is 12 + 30? Explain in one sentence."
"""The starter ends about half its answers to this within 24 tokens."""


def prompts(count: int, samples: int = 4) -> list[Prompt]:
    """Questions that the starter answers in many ways."""
    return [
        Prompt(
            f"task-{i}",
            (Message.of("user", f"What is {i}7 times 23?"),),
            tuple(range(100 * i, 100 * i + samples)),
        )
        for i in range(1, count + 1)
    ]


def image_prompts(folder: Path, samples: int) -> list[Prompt]:
    """The same question about two images of different colour and shape."""
    from PIL import Image

    made = []
    for index, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        path = folder / f"{index}.png"
        Image.new("RGB", (20 + 5 * index, 20), colour).save(path)
        parts = (ImagePart(0), TextPart("what?"))
        made.append(Prompt(f"image-{index}", (Message("user", parts),), tuple(range(samples)), (path,)))
    return made


def moved(policy: Policy, amount: float = 0.02) -> Policy:
    """The policy after an update that moves every trained weight."""
    torch.manual_seed(1)
    version = policy.version
    policy.begin_update()
    with torch.no_grad():
        for _, parameter in policy.trainable:
            parameter.add_(torch.randn_like(parameter) * amount)
    policy.finish_update(version + 1)
    return policy


def largest_difference(engine: Any, policy: Policy, asked: Sequence[Prompt] | None = None) -> float:
    """Between the engine's and the policy's log-probabilities of some fixed outputs, in nats."""
    given = list(asked or prompts(3))
    outputs = [[policy.encoder.text_ids("7 + 8 = 15"), policy.encoder.text_ids("No, it is 9")] for _ in given]
    rows = [engine.score(given, outputs), policy.score(given, outputs)]
    theirs, ours = (torch.tensor([v for group in row for values in group for v in values]) for row in rows)
    return float((theirs - ours).abs().max())


def assert_greedy_as_transformers(engine: Any, policy: Policy, count: int, tokens: int = 40) -> None:
    """Greedy outputs to `count` prompts are the transformers engine's, and so are their log-probabilities."""
    sampling = Sampling(tokens, temperature=0)
    theirs = engine.sample(prompts(count, 1), sampling)
    ours = TransformersEngine(policy).sample(prompts(count, 1), sampling)
    assert len(theirs) == count
    for (a,), (b,) in zip(theirs, ours, strict=True):
        assert (a.token_ids, a.text, a.truncated) == (b.token_ids, b.text, b.truncated)
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-3, rtol=0)


def assert_seeds_decide(engine: Any, count: int) -> None:
    """Outputs depend on their seeds and not on the order of the prompts."""
    sampling = Sampling(24, temperature=1.5)
    together = engine.sample(prompts(count), sampling)
    again = engine.sample(prompts(count)[::-1], sampling)[::-1]
    assert [[c.token_ids for c in g] for g in together] == [[c.token_ids for c in g] for g in again]
    assert all(len({c.token_ids for c in group}) == 4 for group in together)


def assert_ends_are_marked(completions: Sequence[Completion], eos_ids: Collection[int]) -> None:
    """Some outputs end and some are truncated; each says which, and none goes on after its end."""
    assert {c.truncated for c in completions} == {True, False}
    for completion in completions:
        ends = [token in eos_ids for token in completion.token_ids]
        assert ends[-1] is not completion.truncated
        assert not any(ends[:-1])


def assert_images_as_learner(engine: Any, policy: Policy, asked: Sequence[Prompt]) -> list[Prompt]:
    """Outputs about images have the learner's log-probabilities, also with images swapped; the swapped prompts."""
    groups = engine.sample(asked, Sampling(12))
    learners = policy.score(asked, [[c.token_ids for c in group] for group in groups])
    for group, rows in zip(groups, learners, strict=True):
        for completion, row in zip(group, rows, strict=True):
            torch.testing.assert_close(torch.tensor(completion.logprobs), torch.tensor(row), atol=1e-3, rtol=0)
    swapped = [replace(prompt, images=other.images) for prompt, other in zip(asked, asked[::-1], strict=True)]
    assert largest_difference(engine, policy, swapped) < 1e-3
    return swapped


def synced(engine: Any, policy: Any) -> None:
    """The engine takes what the policy (or a tampered one) publishes."""
    engine.take(policy.publish(engine.wanted))


class Tampered:
    """A policy that pushes other tensors than it computes with; `pushed` are the names of the last full push."""

    def __init__(self, policy: Policy, change: str = "none") -> None:
        self._policy = policy
        self._change = change
        self.pushed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def publish(self, wanted: Wanted = Wanted()) -> PublishedWeights:
        return publish_weights(self, wanted)

    def named_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in self._policy.named_tensors(merged=merged):
            self.pushed.append(name)
            if name.endswith("layers.0.mlp.down_proj.weight"):
                if self._change == "interrupt":
                    raise KeyboardInterrupt
                if self._change == "value":
                    tensor = -tensor
                if self._change == "shape":
                    tensor = tensor[:, :-1]
            yield name, tensor


SMALL_RUN = ["--rounds", "2", "--problems.per-round", "4", "--recycle.judge-quota", "2", "--recycle.reflection-quota"]
SMALL_RUN += ["2", "--evaluation.every", "0", "--threads", "1"]


def killed_and_resumed(run: Path, flags: Sequence[str], **extra: str) -> tuple[list[dict[str, Any]], str]:
    """Two rounds of the quickstart by the command line, killed outright after the first; its reports and last output.

    What was sampled before the kill is asserted to be what the finished run holds.
    """
    root = str(Path(__file__).parents[2])
    started = subprocess.Popen(
        [*COMMAND, "run", "quickstart", "--out", str(run), *SMALL_RUN, *flags],
        env=environment(PYTHONPATH=root, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    first = run / "rounds" / "000001" / "report.json"
    deadline = time.monotonic() + 400
    while not first.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    _, errors = started.communicate()
    assert first.exists(), errors[-2000:]
    before = _rollouts(run, 1)
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "resume", str(run)],
        env=environment(PYTHONPATH=root, **extra),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert _rollouts(run, 1) == before
    reports = [json.loads((run / "rounds" / f"{k:06d}" / "report.json").read_text()) for k in (1, 2)]
    return reports, done.stdout


def _rollouts(run: Path, round: int) -> list[dict[str, Any]]:
    return RunReader(run).query(f"SELECT * FROM rollouts WHERE round = {round} ORDER BY id").to_pylist()
