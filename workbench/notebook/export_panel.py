"""Panel 8: what leaves the workbench: the run as a page, its tables, a checkpoint as a model folder."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.reader import RunReader
from workbench.notebook.driver_state import DriverState
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
        self.page = widgets.Text("", description="page", placeholder="exports/RUN.html", layout=wide)
        self.page_button = widgets.Button(
            description="Export page", icon="file-text", tooltip="The run as one HTML file that needs no network"
        )
        self.page_said = widgets.HTML()
        self.report = Job(self.page_button, self.page_said, self._export_page, "Writing the page ...")
        self.tables = widgets.Text("", description="tables", placeholder="exports/RUN-tables", layout=wide)
        self.format = widgets.Dropdown(
            options=["parquet", "csv"], description="format", layout=widgets.Layout(width="200px")
        )
        self.tables_button = widgets.Button(description="Export tables", icon="table", tooltip="Every table as a file")
        self.tables_said = widgets.HTML()
        self.files = Job(self.tables_button, self.tables_said, self._export_tables, "Writing the tables ...")
        super().__init__(
            row(self.page, self.page_button),
            self.page_said,
            row(self.tables, self.format, self.tables_button),
            self.tables_said,
            row(self.round, self.folder, self.model_button),
            row(self.merge),
            self.model_said,
        )

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

    def _export_page(self) -> str:
        from workbench.reporting.report_page.page import write_page
        from workbench.views import RunView

        view = RunView(self._run)
        out = Path(self.page.value.strip() or Path("exports") / f"{self._run.name}.html").expanduser()
        if out.is_dir():
            raise InputError(f"{out} is a folder: name a file.")
        out.parent.mkdir(parents=True, exist_ok=True)
        write_page(view, out)
        return f"{out.absolute()}: {out.stat().st_size / 1e6:.1f} MB, opens in any browser without a network."

    def _export_tables(self) -> str:
        from workbench.reporting.report_page.tables import write_tables

        reader = RunReader(self._run)
        out = Path(self.tables.value.strip() or Path("exports") / f"{self._run.name}-tables").expanduser()
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file: name a folder for the tables.")
        written = write_tables(reader, out, self.format.value)
        return f"{out.absolute()}: {len(written)} tables as {self.format.value}."

    def _export_model(self) -> str:
        if not self._run.exists():
            raise RunFolderError("The run has no folder yet: start it first.")
        from spark_kernel.publish.base_model import describe_base
        from spark_kernel.publish.export import check_export, find_source, write_export
        from workbench.reporting.model_card import model_card

        merge = self.merge.value and not self.merge.disabled
        source = find_source(self._run, None if self.round.value == NEWEST else self.round.value)
        name = f"{self._run.name}-{source.round}{'-merged' if merge else ''}"
        out = Path(self.folder.value.strip() or Path("exports") / name).expanduser()
        if not out.name:
            raise InputError("Give a folder to write to.")
        check_export(source, out, merge=merge)
        base = describe_base(source.config.model)
        card = model_card(RunReader(self._run), source, base, merged=merge, location=str(out))
        write_export(source, base, out, card, merge=merge)
        older = " ".join(f"{sentence} An older one is taken." for sentence in source.damaged)
        what = "adapter" if source.has_adapter and not merge else "full weights"
        return f"{out.absolute()}: {what} of round {source.round}, with a model card. {older}".strip()
