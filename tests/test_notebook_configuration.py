"""The configuration form: every field of the schema, differences, copies that work, refusals that lose nothing."""

from __future__ import annotations

import ast
import shlex
from typing import Any

import pytest

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: the extra `notebook` brings it")

import workbench
from spark_kernel.config import RunConfig, field_names, load_config
from workbench.commands import train
from workbench.notebook.configuration import Configuration
from workbench.settings.form import form_sections


def test_the_form_has_every_setting_with_its_section_description_and_bounds() -> None:
    sections = {section.name: section for section in form_sections()}
    assert sorted(field.name for section in sections.values() for field in section.fields) == sorted(field_names())
    assert {"model.lora", "rollout.vllm"} <= set(sections)
    fields = {field.name: field for section in sections.values() for field in section.fields}
    assert fields["model.lora.rank"].help == "Rank of the update matrices. [at least 1, at most 1024]"
    assert fields["objective.kl_estimator"].choices == ("k1", "k2", "k3")
    assert fields["objective.aggregation"].choices[-1] == "none"
    assert all(field.help for field in fields.values())
    form = Configuration(load_config("quickstart"), "quickstart")
    assert set(form.fields) == set(field_names())
    assert all(control.description for control in form.fields.values())


@pytest.mark.parametrize("preset", ["quickstart", "smollm2", "spark-7b", "spark+faithful"])
def test_what_the_form_shows_reads_back_as_the_same_configuration(preset: str) -> None:
    config = load_config(preset)
    form = Configuration(config, preset)
    form._changed()
    assert form.problem == ""
    assert form.config == config
    assert form.changed_names() == []


def test_a_value_out_of_range_is_refused_in_the_schemas_words_and_stays_as_typed() -> None:
    form = Configuration(load_config("quickstart"), "quickstart")
    form.fields["rollout.samples"].value = "4"
    form.fields["learner.learning_rate"].value = "fast"
    assert "learner.learning_rate = &#x27;fast&#x27; is refused" in form.message.value
    assert 'role="alert"' in form.message.value
    assert form.fields["learner.learning_rate"].value == "fast"
    assert [name for name, field in form.fields.items() if "spark-refused" in field._dom_classes] == [
        "learner.learning_rate"
    ]
    assert form.config.rollout.samples == 4
    form.fields["period.train_policy"].value = False
    form.fields["period.train_reward"].value = False
    form.fields["learner.learning_rate"].value = "1e-4"
    assert "nothing to train" in form.message.value
    form.fields["period.train_reward"].value = True
    assert form.message.value == ""
    assert not any("spark-refused" in field._dom_classes for field in form.fields.values())
    assert form.config.learner.learning_rate == 1e-4


def edited() -> Configuration:
    form = Configuration(load_config("quickstart"), "quickstart")
    for name, value in {
        "rounds": "5",
        "model.lora.enabled": True,
        "model.lora.target_modules": "q_proj, v_proj",
        "problems.source": "files",
        "problems.options": "{path: 'my problems.jsonl'}",
        "rollout.batch_size": "none",
        "recycle.order": "fifo",
        "objective.kind_weights": "{solve: 0.5}",
        "learner.betas": "0.8, 0.99",
    }.items():
        form.fields[name].value = value
    assert form.problem == ""
    return form


def test_the_difference_from_the_preset_is_shown_live() -> None:
    form = edited()
    assert form.changed_names()[:2] == ["rounds", "model.lora.enabled"]
    rounds = load_config("quickstart").rounds
    assert f"<td>{rounds} → 5</td>" in form.difference.value
    assert "spark-changed" in form.fields["rounds"]._dom_classes
    assert "spark-changed" not in form.fields["seed"]._dom_classes
    form.fields["rounds"].value = str(rounds)
    assert f"{rounds} → 5" not in form.difference.value


def test_the_python_copy_makes_the_same_configuration() -> None:
    form = edited()
    call = ast.parse(form.as_text("Python"), mode="eval").body
    assert isinstance(call, ast.Call)
    assert ast.unparse(call.func) == "workbench.new"
    settings = {item.arg: ast.literal_eval(item.value) for item in call.keywords if item.arg}
    assert load_config(ast.literal_eval(call.args[0]), **settings) == form.config


def test_the_command_line_copy_makes_the_same_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    form = edited()
    program, command, *arguments = shlex.split(form.as_text("command line").replace("\\\n", " "))
    assert (program, command) == ("workbench", "run")
    started: list[RunConfig] = []

    class Started(Exception):  # noqa: N818
        pass

    def start(config: RunConfig, _: Any, **_options: Any) -> None:
        started.append(config)
        raise Started

    monkeypatch.setattr("spark_kernel.training.lifecycle.start_run", start)
    with pytest.raises(Started):
        train.run([*arguments, "--out", str(tmp_path / "run")])
    assert started == [form.config]


def test_another_preset_keeps_what_was_changed() -> None:
    form = Configuration(load_config("quickstart"), "quickstart")
    form.fields["rollout.samples"].value = "5"
    form.preset.value = "smollm2"
    assert form.config == load_config("smollm2", rollout__samples=5)
    assert form.changed_names() == ["rollout.samples"]


def test_new_takes_settings_and_the_form_goes_on_with_them(tmp_path: Any) -> None:
    with workbench.new("quickstart", tmp_path / "run", rounds=3) as wb:
        assert wb.driver.config == load_config("quickstart", rounds=3)
        wb.configuration.fields["rounds"].value = "4"
        assert wb.driver.config == load_config("quickstart", rounds=4)
        wb.configuration.fields["rounds"].value = "0"
        assert wb.driver.config == load_config("quickstart", rounds=4)
        assert workbench.new("quickstart", tmp_path / "run", rounds=7) is wb  # its cell was run again
        assert wb.driver.config == load_config("quickstart", rounds=7)
        assert not (tmp_path / "run").exists()
