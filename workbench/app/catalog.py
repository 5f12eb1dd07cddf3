"""What the app may show and run, by name: runs directly below one folder, models that were offered.

A name that comes from a page is looked up in a list, never joined to a path, so it can lead nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.models.load import BUILT_IN, models_folder, resolve_model
from spark_kernel.runs.checkpoints import list_checkpoints
from spark_kernel.runs.layout import RUN_JSON
from spark_kernel.runs.status import RunState, RunSummary, list_runs
from workbench.views.run_view import RunView

STARTERS = tuple(reversed(BUILT_IN))
TRAINED = {"builtin:starter-2": "builtin:starter-2-spark"}
"""A built-in model before training, and what training with SPARK made of it."""
"""The models that ship with the package, the one that is offered first first."""
SHOWN_CHECKPOINTS = 40
"""Checkpoints of one run that are offered: the newest ones."""
LISTED_SECONDS = 1.0
OPEN_RUNS = 8
"""Runs whose tables are kept in memory."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that may be asked. `name` is what a page sends; `path`: what loads it, or the checkpoint's folder.

    `run`: the run's folder where it is a checkpoint, else None. `settings`: of a model that is no checkpoint, where
    they are not the usual ones.
    """

    name: str
    path: str
    run: Path | None = None
    round: int | None = None
    settings: ModelSection | None = None

    @property
    def run_name(self) -> str:
        """The name of the run that a checkpoint is of."""
        return self.name.rpartition(", round ")[0]


@dataclass(slots=True)
class Catalog:
    """The runs below `runs_root`, the `recorded` ones that ship with the package, and the models.

    Args:
        runs_root: folder of runs; it need not exist yet.
        models: models offered besides the starter models: hub ids, folders, built-in or downloaded names.
        recorded: folders of runs that are shown wherever the app runs, by name.
        downloaded: whether models that `workbench models get` fetched are offered too.
        settings: how `models` are loaded and their prompts written, by name; the usual way where absent.
    """

    runs_root: Path
    models: Sequence[str] = ()
    recorded: Mapping[str, Path] = field(default_factory=dict)
    downloaded: bool = True
    settings: Mapping[str, ModelSection] = field(default_factory=dict)
    _views: OrderedDict[Path, RunView] = field(default_factory=OrderedDict)
    _listed: tuple[float, list[RunSummary]] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def runs(self) -> list[RunSummary]:
        """Readable runs, newest first; those that ship with the package last."""
        readable = [run for run in self._found() if run.state is not RunState.UNREADABLE]
        return sorted(readable, key=lambda run: run.created, reverse=True)

    def run_names(self) -> list[str]:
        """The names that `open_run` knows, newest first; the recorded ones last."""
        names = [run.name for run in self.runs()]
        return [*names, *(name for name in self.recorded if name not in names)]

    def unreadable(self) -> list[str]:
        """A sentence for each folder that is a run and cannot be read."""
        return [f"{run.name}: {run.problem}" for run in self._found() if run.state is RunState.UNREADABLE]

    def open_run(self, name: str) -> RunView:
        """The run of a name.

        Raises:
            InputError: no such run.
            RunFolderError: it cannot be read.
        """
        folder = self._folder(name)
        with self._lock:
            view = self._views.pop(folder, None) or RunView(folder)
            self._views[folder] = view
            while len(self._views) > OPEN_RUNS:
                self._views.popitem(last=False)
        return view

    def model_choices(self) -> list[ModelChoice]:
        """The models that may be asked, the preferred one first."""
        found = {name: ModelChoice(name, name, settings=self.settings.get(name)) for name in (*self.models, *STARTERS)}
        if self.downloaded and models_folder().is_dir():
            for config in sorted(models_folder().glob("*/config.json")):
                if not config.parent.name.startswith("."):
                    found.setdefault(config.parent.name, ModelChoice(config.parent.name, config.parent.name))
        for name in self.run_names():
            found |= {choice.name: choice for choice in self._checkpoints(name)}
        return list(found.values())

    def model(self, name: str) -> ModelChoice:
        """The model of a name.

        Raises:
            InputError: no such model is offered.
        """
        for choice in self.model_choices():
            if choice.name == name:
                return choice
        raise InputError("That model is not offered here: choose one from the list.")

    def roots(self) -> list[Path]:
        """Folders whose names are nobody's business on a public page."""
        return [self.runs_root.absolute(), *(path.parent.absolute() for path in self.recorded.values()), Path.home()]

    def _found(self) -> list[RunSummary]:
        """The runs below the root; one event asks several times, so what was found stays good for a moment."""
        known, now = self._listed, time.monotonic()
        if known is not None and now - known[0] < LISTED_SECONDS:
            return known[1]
        found = list_runs(self.runs_root) if self.runs_root.is_dir() else []
        self._listed = (time.monotonic(), found)
        return found

    def _folder(self, name: str) -> Path:
        for run in self.runs():
            if run.name == name:
                return run.path
        if name in self.recorded:
            return self.recorded[name]
        raise InputError("There is no such run here: choose one from the list.")

    def _checkpoints(self, name: str) -> list[ModelChoice]:
        try:
            folder = self._folder(name)
            stored = [info for info in list_checkpoints(folder) if not info.in_progress]
        except (InputError, RunFolderError):  # gone meanwhile
            return []
        return [
            ModelChoice(f"{name}, round {info.round}", str(info.path), folder, info.round)
            for info in reversed(stored[-SHOWN_CHECKPOINTS:])
        ]


def check_models(names: Sequence[str]) -> None:
    """Refuse what cannot be a model before anything is started.

    Raises:
        ModelError: a path that does not exist, or an unknown name.
    """
    for name in names:
        resolve_model(name)


def check_runs_root(root: Path) -> None:
    """Refuse a folder of runs that cannot be one.

    Raises:
        InputError: a file, or a run's own folder.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"--runs {root} is no folder: give the folder that holds the runs.")
    if (root / RUN_JSON).is_file():
        raise InputError(f"--runs {root} is a run itself: give the folder it lies in, {root.absolute().parent}.")
