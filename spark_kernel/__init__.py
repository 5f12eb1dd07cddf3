"""SPARK: one model as policy and as its own judge. The library under the workbench, and its public names.

    from spark_kernel import load_config, start_run

A name is imported from the module it lives in when it is first asked for (PEP 562). So `import spark_kernel` costs
nothing, and a bare GPU machine can use one stage without the others' dependencies. Modules of the kernel import from
where a thing lives, never from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spark_kernel.config import RunConfig, load_config
    from spark_kernel.errors import (
        EngineError,
        InputError,
        ModelError,
        NonFiniteError,
        PhaseError,
        ProblemError,
        RunFolderError,
        RunLockedError,
        SparkError,
        StaleEngineError,
        Stopped,
    )
    from spark_kernel.problems.source import ProblemSource
    from spark_kernel.records import (
        Exclusion,
        ExclusionReason,
        Group,
        ImagePart,
        ImageRef,
        Kind,
        KindStats,
        Message,
        Origin,
        Parse,
        Period,
        Problem,
        Recycled,
        Rollout,
        RoundReport,
        Score,
        Task,
        TextPart,
        UpdateStats,
        View,
    )
    from spark_kernel.recycle.recycler import Recycler
    from spark_kernel.runs.reader import RunReader
    from spark_kernel.runs.status import RunState
    from spark_kernel.training.events import Event
    from spark_kernel.training.lifecycle import fork_run, go_back, resume_run, start_run, undo_back
    from spark_kernel.training.trainer import Trainer
    from spark_kernel.verify.verifier import Verifier, VerifyRequest

__version__ = "0.1.0"  # the only place: pyproject.toml reads it from here

__all__ = [
    "EngineError",
    "Event",
    "Exclusion",
    "ExclusionReason",
    "Group",
    "ImagePart",
    "ImageRef",
    "InputError",
    "Kind",
    "KindStats",
    "Message",
    "ModelError",
    "NonFiniteError",
    "Origin",
    "Parse",
    "Period",
    "PhaseError",
    "Problem",
    "ProblemError",
    "ProblemSource",
    "Recycled",
    "Recycler",
    "Rollout",
    "RoundReport",
    "RunConfig",
    "RunFolderError",
    "RunLockedError",
    "RunReader",
    "RunState",
    "Score",
    "SparkError",
    "StaleEngineError",
    "Stopped",
    "Task",
    "TextPart",
    "Trainer",
    "UpdateStats",
    "Verifier",
    "VerifyRequest",
    "View",
    "__version__",
    "fork_run",
    "go_back",
    "load_config",
    "resume_run",
    "start_run",
    "undo_back",
]

_PLACES = {
    "config": ("RunConfig", "load_config"),
    "errors": (
        *("EngineError", "InputError", "ModelError", "NonFiniteError", "PhaseError", "ProblemError"),
        *("RunFolderError", "RunLockedError", "SparkError", "StaleEngineError", "Stopped"),
    ),
    "problems.source": ("ProblemSource",),
    "records": (
        *("Exclusion", "ExclusionReason", "Group", "ImagePart", "ImageRef", "Kind", "KindStats", "Message", "Origin"),
        *("Parse", "Period", "Problem", "Recycled", "Rollout", "RoundReport", "Score", "Task", "TextPart"),
        *("UpdateStats", "View"),
    ),
    "recycle.recycler": ("Recycler",),
    "runs.reader": ("RunReader",),
    "runs.status": ("RunState",),
    "training.events": ("Event",),
    "training.lifecycle": ("fork_run", "go_back", "resume_run", "start_run", "undo_back"),
    "training.trainer": ("Trainer",),
    "verify.verifier": ("Verifier", "VerifyRequest"),
}
"""Where each public name lives: what the type checker reads above, for the interpreter."""


def __getattr__(name: str) -> Any:
    """A public name from its module, on first use (PEP 562)."""
    for place, names in _PLACES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{place}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, whether or not they were used yet."""
    return sorted({*globals(), *__all__})
