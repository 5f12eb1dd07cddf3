"""`workbench check`: a problem file, a verifier and a model tried on each other before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from spark_kernel.errors import InputError
from workbench.cli import BAD_INPUT, OK
from workbench.commands import quiet_transformers
from workbench.reporting.console import make_console

if TYPE_CHECKING:
    from spark_kernel.problems.files import FilesSource
    from spark_kernel.records import Problem


@dataclass(frozen=True)
class CheckArguments:
    """Try a problem file before training: which rows can be used and which cannot and why, what kinds of answers they
    have, how long their prompts are for a model, and some of them as the model will see them. With --output, what the
    verifier says of an output, and how it was read.

    Exit code 2 where rows are refused. What is given here is given to a run as --problems.options.NAME.
    """

    file: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="FILE", help="JSON Lines, JSON, CSV, TSV or Parquet file; or hub:owner/name."),
    ]
    format: Annotated[
        str, tyro.conf.arg(metavar="NAME", help="The data set's published format; auto: recognised by its fields.")
    ] = "auto"
    columns: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="OURS=FIELD ...", help="Which field is which, as gold=reward_model.ground_truth."),
    ] = ()
    verifier: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help="Verifier of all problems; by default as a run chooses it.")
    ] = None
    gold_pattern: Annotated[
        str | None, tyro.conf.arg(metavar="REGEX", help="Where in a gold's text the gold is: its group 1.")
    ] = None
    gold_index: Annotated[
        Literal[0, 1] | None, tyro.conf.arg(help="Golds are indices of choices written as text, counted from 0 or 1.")
    ] = None
    answer_format: Annotated[
        Literal["auto", "keep"],
        tyro.conf.arg(help="Set known answer-format sentences apart from the questions, or keep them there."),
    ] = "auto"
    split: Annotated[str, tyro.conf.arg(metavar="NAME", help="Split of a hub data set.")] = "train"
    subset: Annotated[str | None, tyro.conf.arg(metavar="NAME", help="Subset of a hub data set.")] = None
    image_root: Annotated[str | None, tyro.conf.arg(metavar="DIR", help="Folder that images given by path lie in.")] = (
        None
    )
    model: Annotated[
        str, tyro.conf.arg(metavar="MODEL", help="Whose chat template and tokens count: name, folder or hub id.")
    ] = "builtin:starter"
    max_prompt_tokens: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Longest prompt; by default rollout.max_prompt_tokens.")
    ] = None
    max_new_tokens: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help="Longest output; by default rollout.max_new_tokens.")
    ] = None
    show: Annotated[int, tyro.conf.arg(metavar="N", help="Problems to show.")] = 10
    output: Annotated[
        str | None, tyro.conf.arg(metavar="TEXT", help="An output of a model, to be scored against a problem.")
    ] = None
    problem: Annotated[
        str | None,
        tyro.conf.arg(metavar="ID|N", help="The problem of --output: its id or number; by default the first."),
    ] = None


def check(arguments: Sequence[str]) -> int:
    """Check a problem file."""
    args = tyro.cli(CheckArguments, prog="workbench check", args=arguments, use_underscores=True)
    options = _options(args)
    # After the cheap checks: these bring torch and transformers.
    from spark_kernel.config.sections import ModelSection, RolloutSection, VerifySection
    from spark_kernel.models.load import load_encoder
    from spark_kernel.problems.inspection import inspect_source, score_output
    from spark_kernel.problems.registry import make_source
    from spark_kernel.verify.pool import VerifierPool
    from workbench.commands import check_output
    from workbench.reporting.waiting import Waiting

    quiet_transformers()
    console = make_console()
    encoder, context = load_encoder(ModelSection(path=args.model))
    rollout = RolloutSection()
    limits = (
        ("max_prompt_tokens", args.max_prompt_tokens or rollout.max_prompt_tokens),
        ("the context less max_new_tokens", context - (args.max_new_tokens or rollout.max_new_tokens)),
    )
    with VerifierPool(1, VerifySection().deadline_seconds) as pool, Waiting(console) as waiting:
        waiting("reading", 0, 0)
        source: Any = make_source("files", options, seed=0)
        found = inspect_source(source, pool, encoder, waiting)
        nothing = args.output is not None and args.problem is None and not _readable(source)
        asked = None if args.output is None or nothing else _problem(args.problem, source)
        verdict = None if asked is None else score_output(pool, asked, args.output or "")
    check_output.print_rows(console, args.file, source.recognised, found)
    if found.usable:
        check_output.print_types(console, found)
        check_output.print_lengths(console, found, encoder, limits)
        check_output.print_problems(console, found, args.show)
        if args.show:
            check_output.print_first(console, found.usable[0], encoder)
    if asked is not None and verdict is not None:
        check_output.print_verdict(console, asked, *verdict)
    if nothing:
        raise InputError("No problem of the file can be read, so --output has nothing to be scored against.")
    return BAD_INPUT if found.refused else OK


def _options(args: CheckArguments) -> dict[str, Any]:
    """The options of the files source that were given; checked as far as that needs no file."""
    if args.show < 0:
        raise InputError(f"--show {args.show} is refused: at least 0.")
    for name in ("max_prompt_tokens", "max_new_tokens"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name} {value} is refused: at least 1.")
    if args.problem is not None and args.output is None:
        raise InputError("--problem goes with --output TEXT: it says what the output answers.")
    given: dict[str, Any] = {"path": args.file, "format": args.format, "answer_format": args.answer_format}
    for name in ("verifier", "gold_pattern", "gold_index", "image_root"):
        if (value := getattr(args, name)) is not None:
            given[name] = value
    if args.verifier is not None:
        from spark_kernel.verify.registry import get_verifier

        get_verifier(args.verifier)
    if args.columns:
        given["columns"] = dict(map(_column, args.columns))
    if args.file.startswith("hub:"):
        given |= {"split": args.split} | ({"subset": args.subset} if args.subset else {})
    elif not Path(args.file).exists():
        raise InputError(f"There is no problem file {args.file}.")
    return given


def _column(text: str) -> tuple[str, str | list[str]]:
    role, equals, field = text.partition("=")
    if not (equals and role and field):
        raise InputError(f"--columns {text} is refused: give OURS=FIELD, such as gold=label or choices=A,B,C,D.")
    return role, field.split(",") if role == "choices" and "," in field else field


def _problem(wanted: str | None, source: FilesSource) -> Problem:
    """The problem with this id, or at this number from 1; without either the first that can be read.

    Raises:
        InputError: there is none.
    """
    size = source.size or 0
    if wanted is not None and wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= size:
        by_id = [problem for problem in _readable(source) if problem.id == wanted]
        return by_id[0] if by_id else source.problem(int(wanted) - 1)
    for problem in _readable(source):
        if wanted in (None, problem.id):
            return problem
    raise InputError(f"--problem {wanted} is no id in the file and no number from 1 to {size}.")


def _readable(source: FilesSource) -> list[Problem]:
    from spark_kernel.errors import ProblemError

    found = []
    for index in range(source.size or 0):
        try:
            found.append(source.problem(index))
        except ProblemError:
            continue  # reported with the other refused rows
    return found
