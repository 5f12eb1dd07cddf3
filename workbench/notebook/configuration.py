"""Panel 1: the configuration as a form made from the schema, before a run starts and for forks of it."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from spark_kernel.config import RunConfig, load_config, merge_settings, preset_names, validate_config
from spark_kernel.errors import InputError
from workbench.notebook.copy_button import CopyButton
from workbench.notebook.driver_state import DriverState, Mode
from workbench.notebook.run_on_disk import Seen
from workbench.notebook.style import Panel, note, row, table
from workbench.settings.differences import differing, nearest_preset, setting
from workbench.settings.form import FormField, form_sections

FORKED_AS_IS = ("seed", "model.")
"""What a fork keeps of its parent."""
Changed = Callable[[], None]


class Configuration(Panel):
    """A form. What was typed stays as it is, also where it is refused; `problem` then says why.

    Args:
        config: what the form shows at first.
        preset: name of a preset, or of several joined with "+"; None: the nearest one.
        take: called with every configuration that is valid, such as `Driver.start`.
    """

    def __init__(
        self, config: RunConfig, preset: str | None = None, take: Callable[[RunConfig], object] | None = None
    ) -> None:
        self._take = take
        self.problem = ""
        self.config = config
        self._run: RunConfig | None = None
        self._run_name = self._run_path = ""
        self._listeners: list[Changed] = []
        self._quiet = False
        self._preset = preset if preset is not None else nearest_preset(config)[0]
        self._base = load_config(self._preset)
        self.fields: dict[str, widgets.Widget] = {}
        self._schema: dict[str, FormField] = {}
        names = preset_names()
        self.preset = widgets.Dropdown(
            options=names if self._preset in names else [self._preset, *names],
            value=self._preset,
            description="preset",
            tooltip="Start from another preset; what you changed stays changed",
            layout=widgets.Layout(width="320px"),
        )
        self.preset.observe(self._rebase, "value")
        self.message = widgets.HTML()
        self.difference = widgets.HTML()
        self.language = widgets.Dropdown(
            options=["Python", "command line", "YAML"], description="copy as", layout=widgets.Layout(width="260px")
        )
        self.language.observe(lambda _: self._show_code(), "value")
        self.code = widgets.HTML()
        self.copy = CopyButton()
        self.form = self._make_form()
        super().__init__(
            self.message,
            row(self.preset, self.language, self.copy),
            self.code,
            self.difference,
            self.form,
        )
        self._show()

    def on_change(self, listener: Changed) -> None:
        """Have something called after every change of the form."""
        self._listeners.append(listener)

    def changed_names(self) -> list[str]:
        """The settings that differ from the run's, or before a run is there from the preset's."""
        return list(differing(self.config, self._reference))

    @property
    def _reference(self) -> RunConfig:
        return self._run if self._run is not None else self._base

    def overrides(self) -> dict[str, Any]:
        """The same with their values, nested: what a fork of the run is to change."""
        found: dict[str, Any] = {}
        for name, (value, _) in differing(self.config, self._reference).items():
            *sections, leaf = name.split(".")
            place = found
            for section in sections:
                place = place.setdefault(section, {})
            place[leaf] = value
        return found

    def set(self, config: RunConfig) -> None:
        """Show another configuration."""
        self._quiet = True
        for name, control in self.fields.items():
            control.value = self._schema[name].show(setting(config, name))
        self._quiet = False
        self._changed()

    def refresh(self, state: DriverState, seen: Seen) -> None:
        """Once the run is there, the form is for forks of it."""
        if state.mode is Mode.NEW:
            return
        if seen.config is None:
            self.difference.value = note(seen.problem, error=True)
            return
        if seen.config == self._run and state.run.name == self._run_name:
            return
        edits = {} if self._run is None else self.overrides()
        self._run, self._run_name = seen.config, state.run.name
        here = Path.cwd()
        self._run_path = str(state.run.relative_to(here) if state.run.is_relative_to(here) else state.run)
        for name, control in self.fields.items():
            control.disabled = name.startswith(FORKED_AS_IS)
        self.preset.disabled = True
        try:
            self.set(validate_config(merge_settings(seen.config.model_dump(), edits)))
        except InputError:
            self.set(seen.config)

    # --- the form

    def _make_form(self) -> widgets.Accordion:
        wide = widgets.Layout(width="440px", flex="0 0 auto")
        line = widgets.Layout(flex_flow="row nowrap", align_items="baseline")
        beside = widgets.Layout(flex="1 1 200px")
        children, titles = [], []
        for section in form_sections():
            rows: list[widgets.Widget] = [widgets.HTML(f'<div class="spark-muted">{html.escape(section.about)}</div>')]
            for field in section.fields:
                control = self._control(field, wide)
                help_text = widgets.HTML(f'<span class="spark-help">{html.escape(field.help)}</span>', layout=beside)
                rows.append(widgets.Box([control, help_text], layout=line))
            children.append(widgets.VBox(rows))
            titles.append(section.name or "the whole run")
        return widgets.Accordion(children=children, titles=titles, selected_index=None)

    def _control(self, field: FormField, layout: widgets.Layout) -> widgets.Widget:
        value = field.show(setting(self.config, field.name))
        common = {"description": field.leaf, "layout": layout, "tooltip": field.help}
        style = {"description_width": "210px"}
        control: widgets.Widget
        if field.control == "check":
            control = widgets.Checkbox(value, indent=True, style=style, **common)
        elif field.control == "choice":
            control = widgets.Dropdown(options=list(field.choices), value=value, style=style, **common)
        else:
            control = widgets.Text(value, continuous_update=False, style=style, **common)
        control.observe(lambda _: self._changed(), "value")
        self.fields[field.name] = control
        self._schema[field.name] = field
        return control

    def _typed(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, control in self.fields.items():
            *sections, leaf = name.split(".")
            place = values
            for section in sections:
                place = place.setdefault(section, {})
            place[leaf] = self._schema[name].read(control.value)
        return values

    def _changed(self) -> None:
        if self._quiet:
            return
        try:
            self.config, self.problem = validate_config(self._typed()), ""
        except InputError as error:
            self.problem = str(error)
        if self._take is not None and not self.problem:
            self._take(self.config)
        self._show()
        for listener in self._listeners:
            listener()

    def _rebase(self, change: Mapping[str, Any]) -> None:
        """Another preset under the same edits."""
        old, self._base, self._preset = self._base, load_config(change["new"]), change["new"]
        self._quiet = True
        for name, control in self.fields.items():
            field = self._schema[name]
            if control.value == field.show(setting(old, name)):
                control.value = field.show(setting(self._base, name))
        self._quiet = False
        self._changed()

    # --- what is shown

    def _show(self) -> None:
        kept = " What you typed is kept; the last valid configuration is still in use." if self.problem else ""
        self.message.value = note(self.problem + kept, error=True)
        if self._run is not None:
            about = f"This run keeps its settings; what you change here is for a fork of {self._run_name}."
            against, reference = f"Fork of {self._run_name} changes", self._run
        else:
            about, against, reference = "", f"Changed from preset {self._preset}", self._base
        changed = differing(self.config, reference)
        rows = [(name, f"{self._text(name, old)} → {self._text(name, new)}") for name, (new, old) in changed.items()]
        if rows:
            shown = table(rows, against)
        elif self._run is not None:
            shown = '<p class="spark-muted">Nothing is changed for a fork.</p>'
        else:
            shown = f'<p class="spark-muted">The same as preset {html.escape(self._preset)}.</p>'
        self.difference.value = (note(about) if about else "") + shown
        for name, control in self.fields.items():
            (control.add_class if name in changed else control.remove_class)("spark-changed")
            # The sentence stands above the form, which is longer than a screen: the field shows that it is meant.
            is_refused = re.search(rf"(?:^|; ){re.escape(name)} = .* is refused", self.problem) is not None
            (control.add_class if is_refused else control.remove_class)("spark-refused")
        self._show_code()

    def _show_code(self) -> None:
        text = self.as_text(self.language.value)
        self.copy.text = text
        self.code.value = f'<pre class="spark-text" tabindex="0">{html.escape(text)}</pre>'

    def _text(self, name: str, value: Any) -> str:
        return str(self._schema[name].show(value))

    def as_text(self, language: str) -> str:
        """What differs from the preset, or from the run to be forked, as Python or command line; as YAML, all of it."""
        if language == "YAML":
            return self.config.to_yaml().rstrip()
        fork = self._run is not None
        values = {name: new for name, (new, _) in differing(self.config, self._reference).items()}
        if language == "Python":
            call, first = ("wb.fork", "new-name") if fork else ("workbench.new", self._preset)
            settings = [f"    {name.replace('.', '__')}={value!r}," for name, value in values.items()]
            return "\n".join([f"{call}(", f'    "{first}",', *settings, ")"]) if settings else f'{call}("{first}")'
        verb, subject = ("fork", self._run_path) if fork else ("run", self._preset)
        flags = [flag for name, value in values.items() for flag in self._flags(name, value)]
        return " \\\n    ".join([f"workbench {verb} {shlex.quote(subject)}", *flags])

    def _flags(self, name: str, value: Any) -> list[str]:
        if isinstance(value, dict):
            return [f"--{name}.{key} {shlex.quote(_yaml_scalar(item))}" for key, item in value.items()]
        if isinstance(value, tuple | list):
            return [f"--{name} {' '.join(shlex.quote(str(item)) for item in value)}"]
        shown = str(value).lower() if isinstance(value, bool) or value is None else str(value)
        return [f"--{name} {shlex.quote(shown)}"]


def _yaml_scalar(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
