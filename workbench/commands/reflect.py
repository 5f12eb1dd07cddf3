"""`workbench reflect`: one question at test time, by the loop or by one of the methods that stand beside it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from spark_kernel.config import merge_settings, validate_config
from spark_kernel.errors import InputError
from spark_kernel.keyed_random import content_hash
from spark_kernel.records import ImageRef, Problem, View
from workbench.cli import OK
from workbench.commands import quiet_transformers
from workbench.settings.flags import read_mapping

if TYPE_CHECKING:
    from spark_kernel.models.policy import Policy
    from spark_kernel.rollout.engine import RolloutEngine, Sampling
    from spark_kernel.test_time.steps import Attempt, LoopSettings, Step
    from spark_kernel.test_time.verdict_probability import Encode


@dataclass(frozen=True)
class ReflectArguments:
    """Answer a question, judge the answer, and where it is rejected reflect and answer again.

    Or, with --method, sample several answers and choose one: the commonest (vote), the first that the model accepts
    (best-of), or the one it believes in most (weighted). The model judges itself. Only with --gold does a verifier say
    besides whether an answer is right.
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
    method: Annotated[
        Literal["loop", "vote", "best-of", "weighted"], tyro.conf.arg(help="How to come to the final answer.")
    ] = "loop"
    samples: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N",
            help="Answers to choose from; by default the loop runs first, and as many as its tokens pay for.",
        ),
    ] = None
    same_answers: Annotated[
        Literal["text", "mathematics"],
        tyro.conf.arg(help="Which answers are the same in a vote: spelled alike, or also mathematically equal."),
    ] = "text"
    reflections: Annotated[int, tyro.conf.arg(metavar="R", help="Most reflections.")] = 2
    view: Annotated[
        Literal["answer", "full"], tyro.conf.arg(help="What the judge sees: the final answer or the whole response.")
    ] = "answer"
    max_new_tokens: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Longest output, in tokens; by default 512 or what fits.")
    ] = None
    temperature: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT", help="0, the loop's default, takes the likeliest token; sampled answers: 1."),
    ] = None
    faithful: Annotated[
        bool,
        tyro.conf.arg(
            help="The loop as the authors' code has it: an unreadable verdict is a no, the last reflection is returned "
            "unjudged."
        ),
    ] = False
    chat_template_kwargs: Annotated[
        str,
        tyro.conf.arg(metavar="YAML", help="What the chat template is given besides, e.g. '{enable_thinking: false}'."),
    ] = ""
    thinking_tags: Annotated[
        str, tyro.conf.arg(metavar="YAML", help="The model's own thinking tags, e.g. '{<scratch>: </scratch>}'.")
    ] = ""
    seed: Annotated[int, tyro.conf.arg(metavar="INT", help="Seed of every draw.")] = 0
    device: Annotated[str, tyro.conf.arg(metavar="NAME", help="auto, cpu, cuda, cuda:N.")] = "auto"


def reflect(arguments: Sequence[str]) -> int:
    """Answer one question."""
    args = tyro.cli(ReflectArguments, prog="workbench reflect", args=arguments, use_underscores=True)
    problem = _problem(args)
    _model_settings(args)
    # After the cheap checks: these bring torch and transformers.
    from spark_kernel.prompts.examples import META
    from spark_kernel.rollout.engine import Sampling
    from spark_kernel.rollout.transformers_engine import TransformersEngine
    from spark_kernel.test_time.loop import self_correct_live
    from workbench.commands.reflect_output import ChainPrinter, print_outcome

    quiet_transformers()
    policy, trained_with_examples = _load(args)
    if args.worked_examples or trained_with_examples:
        problem = replace(problem, meta={**problem.meta, META: True})
    context = policy.loaded.context_length
    longest = args.max_new_tokens or min(512, context // 2)
    if longest >= context:
        raise InputError(f"--max_new_tokens {longest} is refused: the model's context has {context} tokens.")
    greedy = Sampling(longest, args.temperature or 0.0, max_prompt_tokens=context - longest)
    engine, encode = TransformersEngine(policy), policy.encoder.output_ids
    if args.method != "loop":
        return _choose(args, problem, engine, encode, greedy)
    started = time.perf_counter()
    attempt = self_correct_live(
        engine, problem, _loop_settings(args, greedy), ChainPrinter(), seed=args.seed, encode=encode
    )
    print_outcome(attempt, time.perf_counter() - started)
    if args.gold is not None:
        _print_findings([("First", attempt, attempt.first), ("Final", attempt, attempt.final)], problem)
    return OK


def _choose(args: ReflectArguments, problem: Problem, engine: RolloutEngine, encode: Encode, greedy: Sampling) -> int:
    """Sample answers and choose one."""
    from spark_kernel.test_time.equality import LabelAnswers, label_by_mathematics, label_by_text
    from spark_kernel.test_time.methods import Method, choose, spend_on
    from spark_kernel.test_time.sampled import Sampler, answer_at_equal_cost
    from spark_kernel.test_time.steps import Attempt, Stop
    from spark_kernel.verify.pool import VerifierPool
    from workbench.commands.reflect_output import print_choice, print_samples

    method = Method(args.method)
    warm = replace(greedy, temperature=1.0 if args.temperature is None else args.temperature)
    sampler = Sampler(engine, _loop_settings(args, warm), args.seed, encode=encode)
    started = time.perf_counter()
    with ExitStack() as stack:
        label: LabelAnswers = label_by_text
        if args.same_answers == "mathematics":
            label = label_by_mathematics(stack.enter_context(VerifierPool(1, 10.0, 1.0)).score)
        if args.samples is None:
            found = answer_at_equal_cost(
                sampler, [problem], _loop_settings(args, greedy), methods=[method], label=label
            )
            (sampled,), (labels,), spent = found.sampled, found.labels, found.spending[method]
            (choice,) = found.choices[method]
        else:
            drawn = sampler.sample([problem], args.samples)
            (sampled,) = sampler.judge([problem], drawn, args.samples) if method.judges else drawn
            spent = spend_on(method, [sampled], sum(sampled.costs(method)))
            (labels,) = label([[step.answer for step in sampled.answers]])
            choice = choose(method, sampled, labels)
    print_samples(sampled, labels, method, spent.samples[0])
    chosen = sampled.answers[choice.index]
    print_choice(chosen, choice, method, spent, time.perf_counter() - started, loop=args.samples is None)
    if args.gold is not None:
        alone = replace(chosen, index=0, final=True)
        _print_findings([("Final", Attempt(problem.id, (alone,), Stop.UNJUDGED, ""), alone)], problem)
    return OK


def _loop_settings(args: ReflectArguments, sampling: Sampling) -> LoopSettings:
    from spark_kernel.test_time.steps import LoopSettings

    usual = LoopSettings(sampling, sampling, sampling, reflections=args.reflections, judge_view=View(args.view))
    return usual.by_rule(faithful=args.faithful)


def _problem(args: ReflectArguments) -> Problem:
    """The question as a problem; gold and verifier are checked before a model is loaded."""
    if not args.prompt.strip():
        raise InputError("--prompt is empty: ask something.")
    if args.temperature is not None and args.temperature < 0:
        raise InputError(f"--temperature {args.temperature} is refused: at least 0.")
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise InputError(f"--max_new_tokens {args.max_new_tokens} is refused: at least 1.")
    if args.samples is not None and args.method == "loop":
        raise InputError("--samples is for --method vote, best-of or weighted; the loop answers once.")
    if args.samples is not None and args.samples < 1:
        raise InputError(f"--samples {args.samples} is refused: at least 1.")
    if args.temperature == 0 and args.method != "loop":
        raise InputError(f"--method {args.method} needs --temperature above 0: else all samples are the same.")
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

    run, own = Path(args.model), _model_settings(args)
    if not (run / "run.json").is_file():
        if args.round is not None:
            raise InputError(f"--round needs a run's folder as --model; {args.model} is none.")
        return load_policy(validate_config({"model": own | {"path": args.model}}).model), False
    from spark_kernel.learner.checkpoint import load_policy_state
    from spark_kernel.runs.checkpoints import find_checkpoint
    from spark_kernel.runs.configuration import read_config

    config = read_config(run)
    found = find_checkpoint(run, args.round)
    if found is None:
        raise InputError(f"{run} has no checkpoint yet: use its initial model, {config.model.path}.")
    if found.in_progress:
        raise InputError(
            f"The newest checkpoint of {run} stands in the middle of round {found.round}: give --round K, or resume it."
        )
    policy = load_policy(validate_config(merge_settings(config.model_dump(), {"model": own})).model, seed=config.seed)
    load_policy_state(policy, found.path)
    print(f"Checkpoint {found.name} of {run}\n")
    return policy, config.problems.worked_examples


def _model_settings(args: ReflectArguments) -> dict[str, object]:
    """What the flags say about the model, as settings of its section; what was not given is left out."""
    given = {
        "chat_template_kwargs": read_mapping("--chat_template_kwargs", args.chat_template_kwargs),
        "thinking_tags": read_mapping("--thinking_tags", args.thinking_tags),
    }
    return {"device": args.device, **{name: value for name, value in given.items() if value}}


def _print_findings(steps: Sequence[tuple[str, Attempt, Step]], problem: Problem) -> None:
    """What the verifier says about some answers of chains."""
    from spark_kernel.evaluate.chains import chain_groups
    from spark_kernel.verify.pool import VerifierPool

    with VerifierPool(1, 10.0, 1.0) as pool:
        for label, attempt, step in steps:
            groups = chain_groups([attempt], {problem.id: problem}, pool.score, round=0, policy_version=0)
            score = groups[step.index].rollouts[0].score
            words = {True: "right", False: "wrong", None: "unknown"}
            reason = f" ({score.reason})" if score and score.reason else ""
            found = words[score.correct if score else None]
            print(f"{label} answer, by the verifier {problem.verifier}: {found}{reason}")
