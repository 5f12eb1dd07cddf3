"""Experiment trackers as listeners of a run: trackio, Weights & Biases, TensorBoard. Each is imported when asked for.

The step of every number is its round; an evaluation before the first round has step 0. Names: docs/reporting.md.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from spark_kernel.errors import InputError
from spark_kernel.records import RoundReport
from spark_kernel.runs.codec import from_json
from spark_kernel.training.events import Event
from workbench.reporting.metrics import evaluation_metrics, round_metrics

PROJECT = "spark-workbench"
SINKS = ("trackio", "wandb", "tensorboard")


class Tracker(Protocol):
    """Somewhere to put numbers."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Keep some numbers of a round."""
        ...

    def close(self) -> None:
        """Write out what is still waiting."""
        ...


class Sink:
    """A listener that hands the numbers of rounds and evaluations to a tracker.

    Args:
        tracker: where the numbers go; numbers that are not finite are left out, for not every tracker takes them.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __call__(self, event: Event) -> None:
        """Take note of an event; only finished rounds and evaluations carry numbers."""
        if event.name == "round_finished":
            self._log(round_metrics(from_json(RoundReport, dict(event.data))), event.round)
        elif event.name == "evaluation_finished":
            self._log(evaluation_metrics(event.data["summary"]), event.round)

    def close(self) -> None:
        """Write out what is still waiting."""
        self._tracker.close()

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        self._tracker.log({name: value for name, value in numbers.items() if math.isfinite(value)}, step)


def sink_names(text: str) -> tuple[str, ...]:
    """The trackers in a comma-separated list.

    Raises:
        InputError: an unknown name.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in SINKS:
            raise InputError(f'--report-to knows no "{name}": choose from {", ".join(SINKS)}, several with commas.')
    return names


def require_sinks(names: tuple[str, ...]) -> None:
    """Check that the packages of these trackers are installed, without importing them.

    Raises:
        InputError: one is not.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        # A folder of that name in the working directory (W&B makes one) counts as a package without an origin.
        if spec is None or spec.origin is None:
            raise InputError(
                f"--report-to {name} needs the package {name}, which is not installed: "
                'pip install "spark-workbench[report]".'
            )


@contextmanager
def open_sinks(
    names: tuple[str, ...], run: Path, config: Mapping[str, Any], completed: int = 0
) -> Iterator[list[Sink]]:
    """The named sinks, closed at the end.

    Args:
        run: the run folder; its name is the run's name in every tracker.
        config: the run's configuration as JSON values.
        completed: rounds the run has already; TensorBoard forgets what it knew of later ones.
    """
    with ExitStack() as stack:
        sinks = [Sink(_open(name, run, config, completed)) for name in names]
        for sink in sinks:
            stack.callback(sink.close)
        yield sinks


def _open(name: str, run: Path, config: Mapping[str, Any], completed: int) -> Tracker:
    if name == "trackio":
        return _Trackio(run, config)
    if name == "wandb":
        return _Wandb(run, config)
    return _TensorBoard(run, completed)


class _Trackio:
    """Trackio's local mode: an SQLite file below $TRACKIO_DIR (its default: the Hugging Face cache), no server."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        import trackio

        self._run = trackio.init(
            project=PROJECT,
            name=run.name,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class _Wandb:
    """Weights & Biases, in the mode that its own settings say (WANDB_MODE=offline keeps everything on this machine)."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT,
            name=run.name,
            group=run.name,
            dir=str(run),
            config=dict(config),
            settings=wandb.Settings(silent=True),
        )
        # Rounds as the x axis instead of W&B's own counter, which refuses to go back.
        self._run.define_metric("*", step_metric="round")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log({**numbers, "round": step})

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    """Event files in the run folder: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, run: Path, completed: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = completed + 1 if completed else None
        self._writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=purge)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
