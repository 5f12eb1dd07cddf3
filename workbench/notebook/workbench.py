"""All panels of one run together, and the ways to open them."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ipywidgets as widgets

from spark_kernel.config import RunConfig, load_config
from spark_kernel.errors import InputError, SparkError
from spark_kernel.training.interrupt import stops_on_signals
from workbench.notebook.configuration import Configuration
from workbench.notebook.controls import Controls
from workbench.notebook.correction import Correction
from workbench.notebook.driver import Driver
from workbench.notebook.driver_state import BUSY, Mode
from workbench.notebook.export_panel import Export
from workbench.notebook.preflight import Preflight
from workbench.notebook.recycled import Recycled
from workbench.notebook.refresher import Refresher
from workbench.notebook.rollouts import Rollouts
from workbench.notebook.shared import DataPanel, Shared
from workbench.notebook.static_form import with_static_form
from workbench.notebook.style import Panel
from workbench.settings.differences import nearest_preset

if TYPE_CHECKING:
    import pandas as pd

    from workbench.notebook.compare import Compare
    from workbench.notebook.dashboard import Dashboard

_OPEN: weakref.WeakSet[Workbench] = weakref.WeakSet()
"""The workbenches of this process: a run has one, however often its cell is run, as it has one writer."""
PanelT = TypeVar("PanelT", bound=Panel)
END_SECONDS = 10.0
"""How long a kernel that is shut down waits for a worker to let its run go."""


class Workbench:
    """The panels of a run. Display it whole, or a panel alone: `wb.controls`, `wb.dashboard`, ...

    Panels read the run folder; nothing lives only in them. A panel is made when it is first asked for.
    `wb.train(rounds)` is the blocking form for scripts and hosts without widgets.
    """

    def __init__(self, driver: Driver, config: RunConfig | None, preset: str | None = None) -> None:
        self._driver = driver
        self._refresher = Refresher(driver)
        self._shared = Shared(self._refresher.lock)
        seen = self._refresher.look(driver.state)
        self._config = config or seen.config or RunConfig()
        self._preset = preset if preset is not None else nearest_preset(self._config)[0]
        self._tabs: widgets.Tab | None = None
        _OPEN.add(self)

    @cached_property
    def preflight(self) -> Preflight:
        """Versions, device, memory, seed, run folder."""
        return self._added(Preflight(self._driver))

    @cached_property
    def configuration(self) -> Configuration:
        """The form of settings, for a run to be and for forks."""
        return self._added(Configuration(self._config, self._preset, self._driver.start))

    @cached_property
    def controls(self) -> Controls:
        """Start, step, pause, stop, resume, go back, fork."""
        return self._added(Controls(self._driver, self.configuration))

    @cached_property
    def dashboard(self) -> Dashboard:
        """The headline, and figures over rounds."""
        from workbench.notebook.dashboard import Dashboard  # here, because plotly's widgets take a second to load

        return self._added(Dashboard(self._shared))

    @cached_property
    def rollouts(self) -> Rollouts:
        """Outputs, filtered, one by one."""
        return self._added(Rollouts(self._shared))

    @cached_property
    def recycled(self) -> Recycled:
        """Tasks made of outputs, and their lineage."""
        return self._added(Recycled(self._shared))

    @cached_property
    def correction(self) -> Correction:
        """First answer, verdict, reflection."""
        return self._added(Correction(self._shared))

    @cached_property
    def compare(self) -> Compare:
        """This run beside others."""
        from workbench.notebook.compare import Compare

        return self._added(Compare(self.run))

    @cached_property
    def export(self) -> Export:
        """Files to take away."""
        return self._added(Export(self.run))

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self._driver.state.run

    @property
    def driver(self) -> Driver:
        """What the controls ask; its requests return at once."""
        return self._driver

    @property
    def selection(self) -> pd.DataFrame:
        """The outputs that the filters of `wb.rollouts` leave, for the next cell: a row each, all columns."""
        return self.rollouts.selection

    def train(self, rounds: int | None = None) -> None:
        """Train and wait. An interrupt of the kernel stops at the next micro-batch, writes a checkpoint and returns.

        Args:
            rounds: how many more; None: all that are configured.

        Raises:
            SparkError: refused, or failed; says why.
        """
        refusal = self._driver.train(rounds)
        self._finish(refusal)

    def fork(self, name: str, round: int | None = None, **settings: Any) -> None:
        """Go on from a round in a new run beside this one, and wait until it stands. These panels then show the fork.

        Args:
            name: of the new run's folder.
            round: None: the last.
            settings: changes, with double underscores: `learner__learning_rate=1e-4`.

        Raises:
            SparkError: refused, or failed; says why.
        """
        if not name or Path(name).name != name:
            raise InputError(f'"{name}" is no name for a run: leave out slashes.')
        overrides: dict[str, Any] = {}
        for dotted, value in settings.items():
            *sections, leaf = dotted.split("__")
            place = overrides
            for section in sections:
                place = place.setdefault(section, {})
            place[leaf] = value
        self._finish(self._driver.fork(round, self.run.parent / name, overrides))

    def refresh(self) -> None:
        """Bring every panel up to date now, instead of within two seconds."""
        self._refresher.refresh_now()

    def close(self) -> None:
        """Stop what is under way, let the run go and stop refreshing. The panels stay as they are."""
        self._driver.end()
        self._refresher.refresh_now()
        self._refresher.end()
        _OPEN.discard(self)

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def widget(self) -> widgets.Tab:
        """All panels, in tabs."""
        if self._tabs is None:
            panels = {
                "Controls": self.controls,
                "Dashboard": self.dashboard,
                "Rollouts": self.rollouts,
                "Recycled": self.recycled,
                "Self-correction": self.correction,
                "Configuration": self.configuration,
                "Preflight": self.preflight,
                "Compare": self.compare,
                "Export": self.export,
            }
            self._tabs = widgets.Tab([panel.widget for panel in panels.values()], titles=list(panels))
            self._tabs.add_class("spark-tabs")
            self._tabs.selected_index = 0
            in_order = list(panels.values())
            self._tabs.observe(lambda change: _bring_to_front(in_order, change["new"]), "selected_index")
            _bring_to_front(in_order, 0)
        return self._tabs

    def _added(self, panel: PanelT) -> PanelT:
        """Bring a new panel up to date, except what takes long, and keep it so."""
        if not isinstance(panel, Preflight):
            with self._refresher.lock:
                panel.refresh(self._driver.state, self._refresher.look(self._driver.state))
        self._refresher.add(panel.refresh)
        return panel

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_static_form(self.widget._repr_mimebundle_(**kwargs), self.widget)

    def _stop(self) -> None:
        self._driver.stop()

    def _finish(self, refusal: str | None) -> None:
        """Wait for what was asked for.

        Raises:
            SparkError: it was refused, or failed.
        """
        if refusal is not None:
            raise InputError(refusal)
        try:
            with stops_on_signals(self._stop):
                state = self._driver.wait(lambda now: now.mode not in BUSY)
        except KeyboardInterrupt:
            print("The worker goes on stopping in the background; the controls say when it is done.")
            return
        self._refresher.refresh_now()
        if state.failed:
            raise SparkError(state.message)
        print(state.message)


def _bring_to_front(panels: Sequence[Panel], front: int | None) -> None:
    """Panels in tabs that are not seen are not kept up to date: reading a round for each takes a moment."""
    for place, panel in enumerate(panels):
        if isinstance(panel, DataPanel):
            panel.hide(place != front)


def open_run(run: str | Path) -> Workbench:
    """The panels of a run on disk, which may be being written by another process. See `workbench.open`."""
    path = Path(run).absolute()
    known = _of_this_process(path)
    return known if known is not None else Workbench(Driver(path), None)


def new_run(source: str | Path | RunConfig, run: str | Path | None, settings: dict[str, Any]) -> Workbench:
    """The panels of a run to be. See `workbench.new`.

    Raises:
        InputError: an unknown preset or setting, a value out of range, or a folder that holds a run.
    """
    if isinstance(source, RunConfig):
        config, preset = load_config(source.model_dump(), **settings), None
    else:
        config = load_config(source, **settings)
        preset = None if str(source).endswith((".yaml", ".yml")) else str(source)
    if run is None and (begun := _begun_with(config)) is not None:
        return begun
    name = (preset or "run").replace("+", "-")
    path = Path(run if run is not None else Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    known = _of_this_process(path)
    if known is not None and known.driver.state.mode is Mode.NEW:
        known.configuration.set(config)
        return known
    if known is not None and known._config == config:
        return _told_again(known)
    if (path / "run.json").exists():
        raise InputError(f'{path} holds a run already: workbench.open("{path}") shows it; or choose another folder.')
    return Workbench(Driver(path, config), config, preset)


def _begun_with(config: RunConfig) -> Workbench | None:
    """The run that this process holds and that was made with just these settings: its cell is run again."""
    held = (wb for wb in _OPEN if wb.driver.state.mode in (*BUSY, Mode.READY) and wb._config == config)
    begun = next(held, None)
    return None if begun is None else _told_again(begun)


def _told_again(wb: Workbench) -> Workbench:
    print(f"This is the run that was begun with these settings, {wb.run.name}: name a folder for another one.")
    return wb


def _of_this_process(run: Path) -> Workbench | None:
    return next((wb for wb in _OPEN if wb.run == run and wb.driver.state.mode is not Mode.ENDED), None)


@atexit.register
def _let_go() -> None:
    """A kernel that is shut down closes its runs, so that nobody has to take it for a crash."""
    for wb in list(_OPEN):
        wb.driver.end(END_SECONDS)
