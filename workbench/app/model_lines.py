"""One sentence beside each model: what it can do, from where the figure comes."""

from __future__ import annotations

from spark_kernel.errors import SparkError
from spark_kernel.runs.configuration import read_config
from workbench.app.catalog import Catalog, ModelChoice
from workbench.views.headline import JUDGES, LOOP, SOLVED

SOURCES = {
    "arithmetic": "chains of small sums",
    "puzzles": "puzzles with small numbers",
    "reasoning_gym": "tasks of reasoning-gym",
    "files": "problems of its own file",
}
BUILT_IN_LINES = {
    "builtin:starter": "Chains of small sums in words, nothing else. Of new ones it solves 54 %, and in 75 % it judges "
    "its own answer rightly (docs/starter-model.md).",
    "builtin:starter-2": "Puzzles with small numbers, as in the examples. Of new ones it solves 72 %, and in 61 % it "
    "judges its own answer rightly: half of the time it says its verdict at a glance (docs/starter-2.md).",
    "builtin:starter-2-spark": "The same after 20 rounds of SPARK (the quickstart, seed 1). Of the quickstart's "
    "puzzles it judges its own answer rightly in 86 % (before: 59 %), by putting it in (docs/results/quickstart.md).",
}
VERBS = {
    SOLVED: "solves {}", JUDGES: "judges its own answers rightly in {}", LOOP: "is right in {} after the loop"
}  # fmt: skip
OTHERS = (
    "A model that was not trained here. One of fewer than a billion parameters is shown worked examples before every "
    "prompt, as it would hardly keep to the form of an answer without."
)


def model_line(catalog: Catalog, choice: ModelChoice) -> str:
    """What a model can do, in a sentence; of a checkpoint what the nearest held-out evaluation before it says."""
    if choice.run is None:
        return BUILT_IN_LINES.get(choice.path, OTHERS)
    try:
        config = read_config(choice.run)
        view = catalog.open_run(choice.run_name)
        figures = view.headline()
    except (SparkError, OSError):  # gone or damaged meanwhile
        return "A checkpoint of a run that cannot be read now."
    asked = SOURCES.get(config.problems.source, config.problems.source)
    told = []
    measured = 0
    for figure in figures:
        points = zip(figure.rounds, figure.values, strict=True)
        at = [(round, value) for round, value in points if round <= (choice.round or 0) and value is not None]
        if at:
            measured = at[-1][0]
            told.append(VERBS[figure.name].format(f"{at[-1][1]:.0%}"))
    trained = f"Trained for {choice.round} rounds on {asked}"
    if not told:
        return f"{trained}; it was not evaluated."
    return f"{trained}; on held-out ones, after round {measured}, it {', '.join(told)}."
