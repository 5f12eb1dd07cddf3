"""Panel 8: what leaves the workbench. A checkpoint as a model folder, on this machine or on the hub."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.reader import RunReader
from workbench.notebook.driver import DriverState
from workbench.notebook.job import Job
from workbench.notebook.run_on_disk import Seen
from workbench.notebook.style import Panel, row

NEWEST = "newest"


class Export(Panel):
    """Each button says in a sentence where its files are."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._rounds: tuple[int, ...] = ()
        wide = widgets.Layout(width="420px")
        self.round = widgets.Dropdown(options=[NEWEST], description="checkpoint", layout=wide)
        self.merge = widgets.Checkbox(False, description="merge the adapter into full weights", indent=False)
        self.folder = widgets.Text("", description="folder", placeholder="exports/RUN-ROUND", layout=wide)
        self.model_button = widgets.Button(description="Export model", icon="cube", tooltip="A Hugging Face folder")
        self.model_said = widgets.HTML()
        self.model = Job(self.model_button, self.model_said, self._export_model, "Writing the model folder ...")
        super().__init__(row(self.round, self.merge), row(self.folder, self.model_button), self.model_said)

    def refresh(self, state: DriverState, seen: Seen) -> None:
        """List the checkpoints that can be exported."""
        self._run = state.run
        found = () if seen.reader is None else tuple(c.round for c in seen.reader.checkpoints if not c.in_progress)
        if found != self._rounds:
            kept = self.round.value
            self.round.options = [NEWEST, *((f"after round {number}", number) for number in reversed(found))]
            self.round.value = kept if kept in found else NEWEST
            self._rounds = found
        if seen.config is not None:
            self.merge.disabled = not seen.config.model.lora.enabled

    def _export_model(self) -> str:
        if not self._run.exists():
            raise RunFolderError("The run has no folder yet: start it first.")
        from spark_kernel.assembly import model_settings
        from spark_kernel.base_model import describe_base
        from spark_kernel.export import check_export, find_source, write_export
        from workbench.model_card import model_card

        merge = self.merge.value and not self.merge.disabled
        source = find_source(self._run, None if self.round.value == NEWEST else self.round.value)
        name = f"{self._run.name}-{source.round}{'-merged' if merge else ''}"
        out = Path(self.folder.value.strip() or Path("exports") / name).expanduser()
        if not out.name:
            raise InputError("Give a folder to write to.")
        check_export(source, out, merge=merge)
        base = describe_base(model_settings(source.config))
        card = model_card(RunReader(self._run), source, base, merged=merge, location=str(out))
        write_export(source, base, out, card, merge=merge)
        older = " ".join(f"{sentence} An older one is taken." for sentence in source.damaged)
        what = "adapter" if source.has_adapter and not merge else "full weights"
        return f"{out.absolute()}: {what} of round {source.round}, with a model card. {older}".strip()
