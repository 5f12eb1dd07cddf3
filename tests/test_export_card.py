"""The card of an export tells figures, settings, licence and base model as they are; a push puts it on the hub."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from spark_kernel.config import load_config
from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ModelError
from spark_kernel.publish.base_model import UNKNOWN, BaseModel, describe_base, licence_of
from spark_kernel.publish.export import ExportSource, find_source, write_export
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import fork_run
from tests.helpers.fake_hub import TOKEN, FakeHub, Repository
from tests.helpers.tiny_models import save_tiny_llama
from tests.helpers.trained_runs import LORA, MERGED, Trained, card_of, logprobs, same, table_row, train
from workbench.cli import main
from workbench.settings.differences import nearest_preset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("lora"), **LORA)


@pytest.mark.parametrize("round", [1, 2])
def test_the_card_tells_the_figures_of_the_run_folder(full: Trained, tmp_path: Path, round: int) -> None:
    assert main(["export", str(full.run), "--out", str(tmp_path / "out"), "--round", str(round)]) == 0
    metadata, body = card_of(tmp_path / "out")
    reader = RunReader(full.run)
    (rollouts,) = reader.query(f"SELECT count(*) AS n FROM rollouts WHERE round <= {round}").to_pylist()
    (steps,) = reader.query(
        f"SELECT sum(optimizer_steps) AS n, count(*) AS updates FROM updates WHERE round <= {round}"
    ).to_pylist()
    assert table_row(body, "training rollouts") == [str(rollouts["n"])]
    assert table_row(body, "optimizer steps") == [str(int(steps["n"]))]
    assert table_row(body, "policy version") == [f"{steps['updates']} (updates)"]
    assert table_row(body, "rounds") == [f"{round} of 2 planned"]
    assert table_row(body, "seed") == ["0"]
    assert f"torch {torch.__version__}" in table_row(body, "versions")[0]
    first, last = (reader.evaluation(number)["lines"]["solve"]["accuracy"] for number in (0, round))
    expected = [
        f"{100 * figure['value']:.1f}% [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}] n {figure['n']}"
        for figure in (first, last)
    ]
    assert table_row(body, "Accuracy, sampled") == expected
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["library_name"] == "transformers"
    assert "base_model" not in metadata


def test_the_card_names_the_settings_and_no_folder_of_this_machine(lora: Trained, tmp_path: Path) -> None:
    assert main(["export", str(lora.run), "--out", str(tmp_path / "out")]) == 0
    metadata, body = card_of(tmp_path / "out")
    assert metadata["library_name"] == "peft"
    assert table_row(body, "`model.lora.rank`") == ["`4`", "`16`"]
    assert table_row(body, "`model.path`") == ["`model`", "`builtin:starter`"]
    assert "`problems.jsonl`" not in body  # inside the options, below
    assert "'path': 'problems.jsonl'" in table_row(body, "`problems.options`")[0]
    nearest, differing = re.findall(r"Nearest preset: `(.+?)`; it differs from that in (.*)", body)[0]
    assert nearest == nearest_preset(read_config(lora.run))[0]
    assert "`model.lora.rank`" in differing
    assert str(lora.run.parent) not in body
    assert str(tmp_path) not in body
    listed = set(re.findall(r"^\| `([a-z_.]+)` \|", body, flags=re.MULTILINE))
    assert {"learner.learning_rate", "rollout.samples", "checkpoint.every"} <= listed
    assert not listed & {"seed", "threads", "objective.loss"}


@pytest.mark.parametrize(
    ("preset", "overrides", "nearest"),
    [
        ("quickstart", {"rounds": 3, "threads": 7}, ("quickstart", ["rounds"])),
        ("quickstart+policy-only", {"seed": 5}, ("quickstart+policy-only", ["seed"])),
        ("smollm2+faithful", {}, ("smollm2+faithful", [])),
        ("spark", {"rollout__samples": 4}, ("spark", ["rollout.samples"])),
    ],
)
def test_the_nearest_preset_is_the_one_a_run_was_started_from(
    preset: str, overrides: dict[str, Any], nearest: tuple[str, list[str]]
) -> None:
    name, off = nearest_preset(load_config(preset, **overrides))
    assert (name, list(off)) == nearest


def test_the_code_of_a_card_runs(full: Trained, lora: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for trained, options in ((full, []), (lora, ["--merge"]), (lora, [])):
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
        assert main(["export", str(trained.run), "--out", "made", *options]) == 0
        code = re.findall(r"```python\n(.*?)```", card_of(tmp_path / "made")[1], flags=re.DOTALL)[0]
        if 'base = "model"' in code:  # a folder of this machine, by its name only
            monkeypatch.chdir(tmp_path)
            shutil.copytree(trained.model, tmp_path / "model", dirs_exist_ok=True)
        names: dict[str, Any] = {}
        exec(code, names)
        assert same(logprobs(names["model"]), trained.logprobs[2], within=MERGED)


def test_a_fork_counts_from_where_it_was_forked_and_shows_the_first_evaluation(full: Trained, tmp_path: Path) -> None:
    with fork_run(full.run, 1, tmp_path / "fork", {"rounds": 2}) as trainer:
        trainer.train()
    assert main(["export", str(tmp_path / "fork"), "--out", str(tmp_path / "out")]) == 0
    _, body = card_of(tmp_path / "out")
    assert table_row(body, "forked from") == ["`run` after round 1"]
    reader = RunReader(tmp_path / "fork")
    (rollouts,) = reader.query("SELECT count(*) AS n FROM rollouts").to_pylist()
    assert table_row(body, "training rollouts") == [f"{rollouts['n']} since the fork after round 1"]
    assert table_row(body, "policy version") == ["4 (updates)"]
    before = RunReader(full.run).evaluation(0)["lines"]["solve"]["accuracy"]["value"]
    assert "before training, 3 problems" in body
    assert table_row(body, "Accuracy, sampled")[0].startswith(f"{100 * before:.1f}%")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that this process's client talks to, with the right token."""
    served = FakeHub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield served
    served.close()


def test_a_push_puts_the_folder_on_the_hub(
    full: Trained, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    out, one = tmp_path / "out", tmp_path / "one"
    assert main(["export", str(full.run), "--out", str(out), "--push", "me/tiny", "--private"]) == 0
    assert f"Pushed to {hub.url}/me/tiny\n" in capsys.readouterr().out
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert repository.messages == ["Round 2 of run"]
    assert repository.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert b'from_pretrained("me/tiny")' in repository.files["README.md"]
    assert main(["export", str(full.run), "--round", "1", "--out", str(one), "--push", "me/tiny"]) == 0
    assert repository.messages == ["Round 2 of run", "Round 1 of run"]
    assert repository.files["model.safetensors"] == (one / "model.safetensors").read_bytes()


def test_a_push_that_cannot_work_is_one_sentence_and_nothing_is_lost(
    full: Trained, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["me/public"] = Repository(private=False)
    hub.repositories["me/other"] = Repository(files={"adapter_model.safetensors": b"an adapter"})
    out = tmp_path / "out"

    def refused(*arguments: str) -> str:
        assert main(["export", str(full.run), "--out", str(out), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "me/public exists and is public" in refused("--push", "me/public", "--private")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "me/tiny could not be pushed to: " in refused("--push", "me/tiny")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "me/tiny could not be pushed to: " in refused("--push", "me/tiny")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    assert "--push needs a Hugging Face token with write access" in refused("--push", "me/tiny")
    assert list(tmp_path.iterdir()) == []
    assert "me/tiny" not in hub.repositories
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "holds other weights already (adapter_model.safetensors)" in refused("--push", "me/other")
    assert hub.repositories["me/other"].files == {"adapter_model.safetensors": b"an adapter"}
    assert same(logprobs(AutoModelForCausalLM.from_pretrained(out)), full.logprobs[2])  # written before the push


def test_the_licence_is_read_from_a_card_or_unknown() -> None:
    other = "---\nlicense: other\nlicense_name: mine\nlicense_link: https://x\ntags: [a]\n---\ntext"
    assert licence_of(other) == {"license": "other", "license_name": "mine", "license_link": "https://x"}
    assert licence_of("---\r\nlicense: mit\r\n---\r\n") == {"license": "mit"}
    for nothing in (
        "",
        "no metadata",
        "---\ntags: [a]\n---\n",
        "---\nlicense: [a, b]\n---\n",
        "---\n: : {\n---\n",
        "---",
    ):
        assert licence_of(nothing) == UNKNOWN


def test_a_base_model_is_named_as_others_can_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: Trained
) -> None:
    local = save_tiny_llama(tmp_path / "models" / "local")
    monkeypatch.chdir(tmp_path / "models")
    found = describe_base(ModelSection(path="./local"))
    assert (found.name, found.reference, found.on_hub, found.licence) == ("local", str(local), False, UNKNOWN)
    with pytest.raises(ModelError, match=r"There is no model"):
        describe_base(ModelSection(path=str(tmp_path / "gone")))
    starter = describe_base(ModelSection(path="builtin:starter"))
    assert (starter.name, starter.licence["license"]) == ("builtin:starter", "apache-2.0")
    assert AutoModelForCausalLM.from_pretrained(starter.reference) is not None
    monkeypatch.setenv("SPARK_MODELS", str(tmp_path / "models"))
    provenance = {"name": "local", "licence": "Apache-2.0", "source": "hub", "hub_id": "org/tiny"}
    (local / "provenance.json").write_text(json.dumps(provenance))
    found = describe_base(ModelSection(path="local"))
    assert (found.reference, found.on_hub, found.licence) == ("org/tiny", True, {"license": "apache-2.0"})
    rounded = {"name": "local", "licence": "MIT", "source": "pypi", "note": "4 bits.", "same_model_on_hub": "org/tiny"}
    (local / "provenance.json").write_text(json.dumps(rounded))
    found = describe_base(ModelSection(path="local"))
    assert (found.reference, found.on_hub, found.descends_from) == (str(local), False, "org/tiny")
    assert (found.licence, found.note) == ({"license": "mit"}, "4 bits.")


def test_the_licence_of_a_hub_model_is_asked_for(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/tiny"] = Repository(card={"license": "llama3"})
    base = describe_base(ModelSection(path="org/tiny", revision="v1"))
    assert (base.reference, base.on_hub, base.revision) == ("org/tiny", True, "v1")
    assert base.licence == {"license": "llama3"}
    assert describe_base(ModelSection(path="org/none")).licence == UNKNOWN
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert describe_base(ModelSection(path="org/tiny")).licence == UNKNOWN


def test_an_adapter_of_a_hub_model_names_it_with_its_revision(lora: Trained, tmp_path: Path) -> None:
    source: ExportSource = find_source(lora.run)
    base = BaseModel("org/tiny", "org/tiny", True, revision="v1", descends_from="org/tiny")
    write_export(source, base, tmp_path / "out", "a card")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", "v1")
    stored = json.loads((source.checkpoint.path / "adapter_config.json").read_text())
    assert config == stored | {"base_model_name_or_path": "org/tiny", "revision": "v1"}
