"""A problem such as a model was trained on, for whoever has none at hand."""

from __future__ import annotations

from spark_kernel.config.loading import load_config
from spark_kernel.errors import InputError
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.registry import make_source
from spark_kernel.records import Problem
from spark_kernel.runs.configuration import read_config
from workbench.app.catalog import Catalog, ModelChoice
from workbench.app.question import VERIFIERS

PRESETS = {"builtin:starter": "chains", "builtin:starter-2": "quickstart", "builtin:starter-2-spark": "quickstart"}
"""Whose problems each built-in model is for."""
UNLIMITED = ("arithmetic", "puzzles")
"""Sources of a run that can be drawn from here: exact, without files, and without end."""
FIRST, MOST = 2_000_000, 1_000_000
"""Numbers of the problems that are drawn: behind those that training reaches."""


def drawn_problem(catalog: Catalog, choice: ModelChoice, number: int) -> Problem:
    """A problem of the model's own kind; of a model that was not trained here a small sum.

    Args:
        number: any whole number; it determines the problem.

    Raises:
        InputError: the run has no problem that can be asked here.
        RunFolderError: the run cannot be read.
    """
    index = FIRST + number % MOST
    if choice.run is None:
        preset = PRESETS.get(choice.path)
        if preset is None:
            return ArithmeticSource(min_operations=1, max_operations=1, max_value=12, operators="+-").problem(index)
        config = load_config(preset)
    else:
        config = read_config(choice.run)
    if config.problems.source in UNLIMITED:
        return make_source(config.problems.source, config.problems.options, config.seed).problem(index)
    return _held_out(catalog, choice, number)


def _held_out(catalog: Catalog, choice: ModelChoice, number: int) -> Problem:
    view = catalog.open_run(choice.run_name)
    rounds = view.evaluations()
    problems = view.reader.read_evaluation(rounds[-1]).problems if rounds else ()
    fit = [problem for problem in problems if not problem.images and problem.verifier in VERIFIERS]
    if not fit:
        raise InputError("This run has no held-out problem in plain text that can be asked here: write one yourself.")
    return fit[number % len(fit)]
