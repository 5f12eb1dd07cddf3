"""`workbench reflect`: the test-time loop on one question, each step printed as it comes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from spark_kernel.errors import InputError
from spark_kernel.keyed_random import content_hash
from spark_kernel.records import ImageRef, Kind, Problem, View
from workbench.cli import OK
from workbench.commands import quiet_transformers

if TYPE_CHECKING:
    from spark_kernel.models.policy import Policy
    from spark_kernel.test_time.steps import Attempt, Step

NAMES = {Kind.SOLVE: "Answer", Kind.POINTWISE: "Judgement", Kind.REFLECTION: "Reflection"}


@dataclass(frozen=True)
class ReflectArguments:
    """Answer a question, judge the answer, and where it is rejected reflect and answer again.

    The model judges itself. Only with --gold does a verifier say besides whether an answer is right.
    """

    prompt: Annotated[str, tyro.conf.arg(metavar="TEXT", help="The question.")]
    model: Annotated[
        str, tyro.conf.arg(metavar="MODEL", help="Built-in or downloaded name, folder, hub id, or a run's folder.")
    ] = "builtin:starter"
    round: Annotated[
        int | None, tyro.conf.arg(metavar="K", help="With a run's folder: its checkpoint after round K.")
    ] = None
    image: Annotated[
        tuple[Path, ...], tyro.conf.arg(metavar="FILE ...", help="Images, for a vision-language model.")
    ] = ()
    gold: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help="The right answer, if known.")] = None
    verifier: Annotated[str, tyro.conf.arg(metavar="NAME", help="What compares an answer with --gold.")] = "math"
    worked_examples: Annotated[
        bool, tyro.conf.arg(help="Show worked examples before every prompt; a run that trained with them has them on.")
    ] = False
    reflections: Annotated[int, tyro.conf.arg(metavar="R", help="Most reflections.")] = 2
    view: Annotated[
        Literal["answer", "full"], tyro.conf.arg(help="What the judge sees: the final answer or the whole response.")
    ] = "answer"
    max_new_tokens: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Longest output, in tokens; by default 512 or what fits.")
    ] = None
    temperature: Annotated[float, tyro.conf.arg(metavar="FLOAT", help="0 takes the likeliest token each time.")] = 0.0
    seed: Annotated[int, tyro.conf.arg(metavar="INT", help="Seed of every draw.")] = 0
    device: Annotated[str, tyro.conf.arg(metavar="NAME", help="auto, cpu, cuda, cuda:N.")] = "auto"


def reflect(arguments: Sequence[str]) -> int:
    """Run the loop on one question."""
    args = tyro.cli(ReflectArguments, prog="workbench reflect", args=arguments, use_underscores=True)
    problem = _problem(args)
    # After the cheap checks: these bring torch and transformers.
    from spark_kernel.prompts.examples import META
    from spark_kernel.rollout.engine import Sampling
    from spark_kernel.rollout.transformers_engine import TransformersEngine
    from spark_kernel.test_time.loop import self_correct
    from spark_kernel.test_time.steps import LoopSettings

    quiet_transformers()
    policy, trained_with_examples = _load(args)
    if args.worked_examples or trained_with_examples:
        problem = replace(problem, meta={**problem.meta, META: True})
    context = policy.loaded.context_length
    longest = args.max_new_tokens or min(512, context // 2)
    if longest >= context:
        raise InputError(f"--max_new_tokens {longest} is refused: the model's context has {context} tokens.")
    sampling = Sampling(longest, args.temperature, max_prompt_tokens=context - longest)
    settings = LoopSettings(sampling, sampling, sampling, reflections=args.reflections, judge_view=View(args.view))
    started = time.perf_counter()
    (attempt,) = self_correct(TransformersEngine(policy), [problem], settings, seed=args.seed, on_step=print_step)
    print_outcome(attempt, time.perf_counter() - started)
    if args.gold is not None:
        _print_findings(attempt, problem)
    return OK


def print_step(step: Step) -> None:
    """One step: what it is, what was written, and what was read out of it."""
    about = "" if step.about is None else f" (about step {step.about + 1})"
    if step.kind.judges:
        read = f"verdict: {step.verdict}" if step.verdict else f"no verdict could be read ({step.parse})"
    else:
        read = f"answer: {step.answer}" if step.answer is not None else "no answer could be read"
    cut = ", cut off at the limit" if step.completion.truncated else ""
    print(f"--- step {step.index + 1}: {NAMES[step.kind]}{about}, {step.tokens} tokens{cut}")
    print(step.text.strip())
    print(f"[{read}]\n")


def print_outcome(attempt: Attempt, seconds: float) -> None:
    """How the loop ended, and what it cost."""
    final = attempt.final
    judged = any(step.kind.judges and step.about == final.index for step in attempt.steps)
    print(f"Final answer: {final.answer if final.answer is not None else '(none)'}, from step {final.index + 1}.")
    print(attempt.detail)
    if not judged:
        print("This answer was never judged.")
    if final.first and len(attempt.steps) > 1 and attempt.stop in ("rejected", "no_answer"):
        print("The loop fell back to the first answer.")
    print(f"Self-judged, not verified. {len(attempt.steps)} steps, {attempt.tokens} tokens, {seconds:.1f} s.")


def _problem(args: ReflectArguments) -> Problem:
    """The question as a problem; gold and verifier are checked before a model is loaded."""
    if not args.prompt.strip():
        raise InputError("--prompt is empty: ask something.")
    if args.temperature < 0:
        raise InputError(f"--temperature {args.temperature} is refused: at least 0.")
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise InputError(f"--max_new_tokens {args.max_new_tokens} is refused: at least 1.")
    images = tuple(_image(path) for path in args.image)
    name = content_hash(args.prompt, *(image.sha256 for image in images))
    problem = Problem(f"prompt-{name}", args.prompt, args.gold or "", args.verifier, images)
    if args.gold is not None:
        from spark_kernel.verify.registry import get_verifier

        get_verifier(args.verifier).check_gold(problem)
    return problem


def _image(path: Path) -> ImageRef:
    try:
        return ImageRef(hashlib.sha256(path.read_bytes()).hexdigest(), str(path.absolute()))
    except OSError as error:
        raise InputError(f"--image {path} cannot be read: {error.strerror}.") from None


def _load(args: ReflectArguments) -> tuple[Policy, bool]:
    """The model, or the policy of a run's checkpoint, and whether that run has worked examples in its prompts."""
    from spark_kernel.models.policy import load_policy
    from spark_kernel.models.settings import ModelSettings

    run = Path(args.model)
    if not (run / "run.json").is_file():
        if args.round is not None:
            raise InputError(f"--round needs a run's folder as --model; {args.model} is none.")
        return load_policy(ModelSettings(args.model, device=args.device)), False
    from spark_kernel.assembly import learner_settings, model_settings, objective_settings
    from spark_kernel.learner.checkpoint import load_learner
    from spark_kernel.learner.learner import Learner
    from spark_kernel.lifecycle import read_config
    from spark_kernel.runs.checkpoints import find_checkpoint

    config = read_config(run)
    found = find_checkpoint(run, args.round)
    if found is None:
        raise InputError(f"{run} has no checkpoint yet: use its initial model, {config.model.path}.")
    if found.in_progress:
        raise InputError(
            f"The newest checkpoint of {run} stands in the middle of round {found.round}: give --round K, or resume it."
        )
    policy = load_policy(replace(model_settings(config), device=args.device))
    learner = Learner(policy, objective_settings(config), learner_settings(config), images_root=run)
    load_learner(learner, found.path)
    print(f"Checkpoint {found.name} of {run}\n")
    return policy, config.problems.worked_examples


def _print_findings(attempt: Attempt, problem: Problem) -> None:
    """What the verifier says about the first and the final answer."""
    from spark_kernel.evaluate.chains import chain_groups
    from spark_kernel.verify.pool import VerifierPool

    with VerifierPool(1, 10.0, 1.0) as pool:
        groups = chain_groups([attempt], {problem.id: problem}, pool.score, round=0, policy_version=0)
    for label, step in (("First", attempt.first), ("Final", attempt.final)):
        score = groups[step.index].rollouts[0].score
        words = {True: "right", False: "wrong", None: "unknown"}
        reason = f" ({score.reason})" if score and score.reason else ""
        print(f"{label} answer, by the verifier {problem.verifier}: {words[score.correct if score else None]}{reason}")
