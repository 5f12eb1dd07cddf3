"""The tab "About": what this is, which model and data it shows, their licences, and what it does not show."""

from __future__ import annotations

from functools import cache

from spark_kernel import __version__
from spark_kernel.errors import SparkError
from workbench.app.context import AppContext
from workbench.app.markup import definitions, heading, paragraph, table
from workbench.app.question import VERIFIERS
from workbench.views import RunView
from workbench.views.snapshot import run_config

WHAT = (
    "One language model is trained as policy and as its own judge (SPARK, arXiv 2509.22624). After a verifier has "
    "scored an answer, the answer becomes a question about correctness for the same model. Afterwards the model judges "
    "its own answers and corrects them. This page shows that live, and lets you look through a training run round by "
    "round. It reads runs and models, and trains and writes nothing."
)
LIMITS = (
    "A self-judgement is the model's opinion about its own answer. It is no proof, and where the model errs, its "
    "judgement often errs as well.",
    "Only where a gold answer is given does a verifier compare, and it compares the final answer, not the way to it.",
    "The built-in starter model knows chains of small sums and nothing else. It shows the mechanism; it is no useful "
    "assistant, and its figures say nothing about large models.",
    "A figure with a 95 % interval is as certain as the interval is narrow. One run is one seed.",
    "Text on this page was written by models and by the authors of problems. Nobody has checked it.",
)


def about_html(context: AppContext, view: RunView | None) -> str:
    """The page's text."""
    bounds = context.limits
    parts = [heading("What this is"), paragraph(WHAT), heading("What it does not show")]
    parts.append("<ul>" + "".join(f"<li>{line}</li>" for line in LIMITS) + "</ul>")
    parts.append(heading("Models that can be asked"))
    rows = [
        (choice.name, "checkpoint of a run" if choice.run else "model", _licence(choice.path) if not choice.run else "")
        for choice in context.catalog.model_choices()
    ]
    parts.append(table(("name", "what it is", "licence"), rows, caption="Models"))
    if view is not None:
        parts += [heading("The run that is chosen"), *_run(context, view)]
    parts.append(heading("Bounds"))
    parts.append(
        definitions(
            (
                ("question", f"at most {bounds.prompt_chars} characters"),
                (
                    "image",
                    f"at most {bounds.image_bytes / 2**20:.0f} MiB and {bounds.image_pixels / 1e6:.0f} million pixels",
                ),
                ("one step", f"at most {bounds.new_tokens} tokens"),
                ("reflections", f"at most {bounds.reflections}"),
                ("questions in the queue", bounds.waiting),
                ("verifiers", ", ".join(VERIFIERS)),
            )
        )
    )
    parts.append(heading("Software"))
    parts.append(
        paragraph(
            f"SPARK workbench {__version__}, Apache-2.0. SPARK is the work of its authors; this is an independent "
            "implementation. The starter model was made by this project and has the same licence."
        )
    )
    return f'<div class="sw-about">{"".join(parts)}</div>'


def _run(context: AppContext, view: RunView) -> list[str]:
    snapshot = view.snapshot()
    facts: list[tuple[str, object]] = [
        ("run", snapshot.name),
        ("state", snapshot.state),
        ("started", snapshot.created[:16].replace("T", " ") + " UTC"),
    ]
    try:
        config = run_config(snapshot.config_yaml)
    except SparkError as error:
        return [definitions(facts), paragraph(context.sentence(error), "warning")]
    held_out = f"{config.problems.held_out_fraction:.0%} by content, never trained on"
    facts += [
        ("model", context.without_roots(config.model.path)),
        ("problems", context.without_roots(config.problems.source)),
        ("held-out problems", held_out),
        ("preset", f"{snapshot.preset}, {len(snapshot.differences)} settings differ"),
        ("rounds", f"{snapshot.rounds_done} of {snapshot.rounds_configured}"),
        ("seed", config.seed),
    ]
    return [
        definitions(facts),
        paragraph("The licence of a data set is its author's to say; see where the run's problems come from.", "muted"),
    ]


@cache
def _licence(path: str) -> str:
    """The licence that comes with a model here; a hub model's page is not asked for it."""
    from pathlib import Path

    from spark_kernel.config.sections import ModelSection
    from spark_kernel.models.load import resolve_model
    from spark_kernel.publish.base_model import describe_base

    if not Path(resolve_model(path)).exists():
        return "see its page on the hub"
    return describe_base(ModelSection(path=path)).licence.get("license", "unknown")
