"""Panel 0: versions, device, free memory, seed, run folder, and whether the model fits before it is loaded."""

from __future__ import annotations

import shutil
import threading
from typing import Any

import ipywidgets as widgets

from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError
from spark_kernel.runs.environment import describe_environment
from workbench.notebook.driver import Driver
from workbench.notebook.driver_state import DriverState, Mode
from workbench.notebook.job import Job
from workbench.notebook.run_on_disk import Seen
from workbench.notebook.style import Panel, note, row, table

GIB = 2**30


class Preflight(Panel):
    """Where and what a run is. The machine is looked at in the background, because that loads torch."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._machine: dict[str, Any] | None = None
        self._looking: threading.Thread | None = None
        self._free: list[tuple[str, str]] = []
        self._config: RunConfig | None = None
        self._shown: object = None
        self.facts = widgets.HTML()
        self.memory = widgets.HTML()
        self.check = widgets.Button(
            description="Check memory",
            icon="balance-scale",
            tooltip="Estimate what the run needs before its weights are loaded; may fetch the model's configuration",
        )
        self.job = Job(self.check, self.memory, self._estimate, "Estimating ...")
        super().__init__(self.facts, row(self.check), self.memory)
        self.facts.value = note("Looking at this machine ...")

    def refresh(self, state: DriverState, seen: Seen) -> None:
        """Show the run, and the machine once it is known."""
        config = self._driver.config or seen.config
        self._config = config
        key = (state.run, state.mode is Mode.NEW, seen.problem, config, self._machine is None)
        if key == self._shown:
            return
        recorded = seen.reader.environment if seen.reader is not None else None
        self.facts.value = self._facts(state, seen, config, recorded)
        self._shown = key
        if self._machine is None and self._looking is None:
            self._looking = threading.Thread(target=self._look, args=(state, seen), name="this machine", daemon=True)
            self._looking.start()

    def wait(self, timeout: float | None = None) -> None:
        """Block until the machine was looked at, and a memory check that was asked for is done."""
        if self._looking is not None:
            self._looking.join(timeout)
        self.job.wait(timeout)

    def _look(self, state: DriverState, seen: Seen) -> None:
        self._free = _free_memory()
        self._machine = describe_environment()
        self.refresh(state, seen)

    def _facts(self, state: DriverState, seen: Seen, config: RunConfig | None, recorded: dict[str, Any] | None) -> str:
        rows = [("run folder", str(state.run))]
        if config is not None:
            rows += [
                ("model", config.model.path),
                ("problems", f"{config.problems.source}, {config.problems.per_round} a round"),
                ("seed", str(config.seed)),
                ("rounds", str(config.rounds)),
            ]
        parts = [note(seen.problem, error=True) if state.mode is not Mode.NEW else "", table(rows, "Run")]
        if self._machine is not None:
            parts.append(
                table([*_machine_rows(self._machine), *self._free, ("free disk", _free_disk(state))], "This machine")
            )
        if recorded:
            parts.append(table(_machine_rows(recorded), "Where the run was started"))
        return "".join(parts)

    def _estimate(self) -> str:
        from spark_kernel.models.preflight import check_memory
        from spark_kernel.rollout.memory_use import memory_demand

        if self._config is None:
            raise InputError("The configuration of this run cannot be read.")
        found = check_memory(self._config.model, memory_demand(self._config))
        return found.line if found is not None else "The need cannot be told beforehand (quantized weights)."


def _machine_rows(environment: dict[str, Any]) -> list[tuple[str, str]]:
    packages = environment.get("packages") or {}
    torch = environment.get("torch") or {}
    cpu = environment.get("cpu") or {}
    names = ("spark-workbench", "torch", "transformers", "peft", "vllm")
    versions = ", ".join(f"{name} {packages[name]}" for name in names if packages.get(name))
    devices = [f"{d['name']} ({d['memory_bytes'] / GIB:.0f} GiB)" for d in torch.get("devices") or ()]
    processor = f"{cpu.get('model')}, {cpu.get('usable_cores')} cores, {torch.get('threads')} threads"
    memory = environment.get("memory_bytes")
    return [
        ("versions", f"Python {environment.get('python')}, {versions}"),
        ("device", ", ".join(devices) or f"CPU: {processor}"),
        *([("processor", processor)] if devices else []),
        ("memory", _memory(memory)),
    ]


def _memory(total: Any) -> str:
    return f"{total / GIB:.1f} GiB" if isinstance(total, int) else "unknown"


def _free_memory() -> list[tuple[str, str]]:
    import torch

    from spark_kernel.models.memory import free_bytes

    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [("free memory", ", ".join(f"{free_bytes(torch.device(d)) / GIB:.1f} GiB on {d}" for d in devices))]


def _free_disk(state: DriverState) -> str:
    place = next((folder for folder in (state.run, *state.run.parents) if folder.exists()), None)
    if place is None:
        return "unknown"
    return f"{shutil.disk_usage(place).free / GIB:.1f} GiB where the run lies"
