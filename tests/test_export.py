"""Exports of real runs: what loads, what it computes, what its card says, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from spark_kernel.config import load_config
from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import InputError, ModelError, RunFolderError
from spark_kernel.models.policy import load_policy
from spark_kernel.publish.base_model import UNKNOWN, BaseModel, describe_base, licence_of
from spark_kernel.publish.export import ExportSource, find_source, write_export
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import fork_run, start_run
from tests.helpers.cli import workbench
from tests.helpers.fake_hub import TOKEN, FakeHub, Repository
from tests.helpers.runs import tiny_config
from tests.helpers.tiny_models import save_tiny_idefics3, save_tiny_llama
from workbench.cli import main
from workbench.settings.differences import nearest_preset

pytestmark = pytest.mark.slow
IDS = torch.tensor([[65, 66, 67, 90, 100, 258, 12, 13, 200, 201]])
MERGED = 1e-4
"""Log-probabilities of merged weights differ by rounding: one product instead of two."""
LORA = {"model__lora__enabled": True, "model__lora__rank": 4, "learner__learning_rate": 1e-2, "objective__beta": 0.0}


@dataclass(frozen=True)
class Trained:
    """A run of two rounds, each with a checkpoint, and the log-probabilities [T, V] of its policy after each."""

    run: Path
    model: Path
    logprobs: dict[int, Tensor]


def logprobs(network: Any) -> Tensor:
    with torch.inference_mode():
        return network(input_ids=IDS).logits[0].float().log_softmax(-1)


def train(folder: Path, **settings: Any) -> Trained:
    config = tiny_config(folder, rounds=2, checkpoint__every=1, evaluation__every=1, **settings)
    model = folder / "model"
    (model / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A tiny model\n")
    found = {}
    with start_run(config, folder / "run") as trainer:
        found[0] = logprobs(trainer.parts.learner.policy.network)
        for round in (1, 2):
            trainer.train(rounds=1)
            found[round] = logprobs(trainer.parts.learner.policy.network)
    return Trained(folder / "run", model, found)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("lora"), **LORA)


def same(found: Tensor, expected: Tensor, *, within: float = 1e-5) -> bool:
    return bool(torch.allclose(found, expected, atol=within, rtol=0))


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text of an export's card."""
    card = ModelCard.load(folder / "README.md")  # as the hub's own library reads it
    return card.data.to_dict(), card.text


def table_row(body: str, label: str) -> list[str]:
    (line,) = [line for line in body.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_full_weights_load_as_any_model_and_compute_what_the_policy_did(full: Trained, tmp_path: Path) -> None:
    assert main(["export", str(full.run), "--out", str(tmp_path / "newest")]) == 0
    assert main(["export", str(full.run), "--out", str(tmp_path / "first"), "--round", "1"]) == 0
    newest = AutoModelForCausalLM.from_pretrained(tmp_path / "newest")
    first = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    assert same(logprobs(newest), full.logprobs[2])
    assert same(logprobs(first), full.logprobs[1])
    assert not same(full.logprobs[0], full.logprobs[1])
    assert not same(full.logprobs[1], full.logprobs[2])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "newest")
    message = [{"role": "user", "content": "hello"}]
    ours = AutoTokenizer.from_pretrained(full.model)
    assert tokenizer.apply_chat_template(message, tokenize=False) == ours.apply_chat_template(message, tokenize=False)


def test_an_export_is_the_checkpoint_without_what_only_training_needs(full: Trained, tmp_path: Path) -> None:
    assert main(["export", str(full.run), "--out", str(tmp_path / "out")]) == 0
    checkpoint = full.run / "checkpoints" / "000002"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in checkpoint.iterdir()} - {"state", "checkpoint.json"} | {"README.md"}
    for name in names - {"README.md"}:
        assert (tmp_path / "out" / name).read_bytes() == (checkpoint / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_adapter_names_its_base_and_computes_what_the_policy_did(lora: Trained, tmp_path: Path) -> None:
    assert main(["export", str(lora.run), "--out", str(tmp_path / "adapter")]) == 0
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(lora.model.absolute())
    assert not list((tmp_path / "adapter").glob("model*.safetensors"))
    base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"])
    assert same(logprobs(base), lora.logprobs[0])
    assert same(logprobs(PeftModel.from_pretrained(base, str(tmp_path / "adapter"))), lora.logprobs[2])
    assert same(logprobs(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")), lora.logprobs[2])
    assert not same(lora.logprobs[0], lora.logprobs[2])


def test_a_merged_export_is_full_weights_with_the_adapter_in_them(lora: Trained, tmp_path: Path) -> None:
    assert main(["export", str(lora.run), "--merge", "--round", "1", "--out", str(tmp_path / "merged")]) == 0
    assert not list((tmp_path / "merged").glob("adapter*"))
    merged = logprobs(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert same(merged, lora.logprobs[1], within=MERGED)
    policy = load_policy(read_config(lora.run).model)
    policy.load_adapter(lora.run / "checkpoints" / "000001")
    expected = dict(policy.named_tensors(merged=True))
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert stored
    assert set(expected) - set(stored) <= {"lm_head.weight"}  # tied to the embedding
    for name, tensor in stored.items():
        assert torch.equal(tensor, expected[name]), name
    original = load_file(lora.model / "model.safetensors")
    changed = {name for name in stored if not torch.equal(stored[name], original[name])}
    assert changed == {name for name in stored if "_proj" in name}


def test_a_merge_in_bfloat16_with_dora_is_that_of_the_policy(tmp_path: Path) -> None:
    settings = {"model__dtype": "bfloat16", "model__lora__dora": True, "model__lora__rslora": True}
    trained = train(tmp_path / "parts", **LORA, **settings)
    assert main(["export", str(trained.run), "--merge", "--out", str(tmp_path / "merged")]) == 0
    policy = load_policy(read_config(trained.run).model)
    policy.load_adapter(trained.run / "checkpoints" / "000002")
    expected = dict(policy.named_tensors(merged=True))
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    for name, tensor in stored.items():
        assert torch.equal(tensor, expected[name]), name
    found = logprobs(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    moved = (trained.logprobs[2] - trained.logprobs[0]).abs().mean()
    assert (found - trained.logprobs[2]).abs().mean() < 0.2 * moved
    assert "merged in bfloat16" in card_of(tmp_path / "merged")[1]


@pytest.mark.parametrize("merge", [False, True])
def test_a_vision_language_model_goes_with_its_processor(tmp_path: Path, merge: bool) -> None:
    model = save_tiny_idefics3(tmp_path / "model")
    folder = tmp_path / "parts"
    tiny_config(folder)
    settings = {**LORA, "model__path": str(model), "rounds": 1, "evaluation__every": 0}
    with start_run(tiny_config(folder, **settings), tmp_path / "run") as trainer:
        trainer.train()
        expected = logprobs(trainer.parts.learner.policy.network)
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "run"), "--out", str(out), *(["--merge"] if merge else [])]) == 0
    metadata, body = card_of(out)
    assert metadata["pipeline_tag"] == "image-text-to-text"
    assert "AutoModelForImageTextToText" in body
    assert type(AutoProcessor.from_pretrained(out)).__name__ == "Idefics3Processor"
    if merge:
        network = AutoModelForImageTextToText.from_pretrained(out)
    else:
        network = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(model), str(out))
    assert same(logprobs(network), expected, within=MERGED)


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
    assert "`model.lora.rank`" in re.findall(r"Nearest preset: `quickstart`; it differs from that in (.*)", body)[0]
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


def test_an_older_checkpoint_is_taken_where_the_newest_is_damaged(
    full: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(full.run, tmp_path / "run")
    weights = run / "checkpoints" / "000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"torn")
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "model.safetensors is not what was written. An older one is taken." in capsys.readouterr().err
    assert same(logprobs(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), full.logprobs[1])
    assert main(["export", str(run), "--out", str(tmp_path / "other"), "--round", "2"]) == 1
    assert "000002 is damaged" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_exported_is_one_sentence(
    full: Trained, lora: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "mine.txt").write_text("keep me")
    full_run, lora_run, out = str(full.run), str(lora.run), str(tmp_path / "out")
    cases = [
        ([str(tmp_path / "nowhere")], "There is no run at"),
        ([full_run, "--out", out, "--round", "7"], "no checkpoint after round 7; rounds with a checkpoint: 1, 2."),
        ([full_run, "--out", out, "--merge"], "trained all weights, so there is no adapter to merge"),
        ([full_run, "--out", str(filled)], "is not empty and is never overwritten"),
        ([full_run, "--out", str(filled / "mine.txt")], "exists and is no folder"),
        ([full_run, "--out", str(full.run / "export")], "lies in the run's own folder"),
        ([full_run, "--out", out, "--private"], "--private goes with --push"),
        ([full_run, "--out", out, "--push", "name"], '"name" names no owner: write OWNER/NAME'),
        ([full_run, "--out", out, "--push", "a//b"], '"a//b" is no repository name'),
        ([lora_run, "--out", out, "--push", "me/name"], "nobody could load the adapter from the hub"),
    ]
    for arguments, sentence in cases:
        assert main(["export", *arguments]) == 2, arguments
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
    assert [path.name for path in tmp_path.iterdir()] == ["filled"]
    assert [path.name for path in filled.iterdir()] == ["mine.txt"]


def test_a_checkpoint_in_mid_round_is_no_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run(tiny_config(tmp_path / "parts", evaluation__every=0), tmp_path / "run") as trainer:
        trainer.roll_out()
        trainer.checkpoint()
    assert [info.in_progress for info in RunReader(tmp_path / "run").checkpoints] == [True]
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "no checkpoint of a finished round yet" in capsys.readouterr().err


def test_an_export_that_fails_leaves_nothing(full: Trained, tmp_path: Path) -> None:
    """A file vanishes between the check and the copy, as when the trainer clears an old checkpoint away."""
    run = shutil.copytree(full.run, tmp_path / "run")
    source = find_source(run)
    (run / "checkpoints" / "000002" / "tokenizer.json").unlink()
    base = BaseModel("model", str(full.model), False)
    (tmp_path / "target").mkdir()
    with pytest.raises(RunFolderError, match=r"Could not export in .*No such file or directory"):
        write_export(source, base, tmp_path / "target" / "out", "a card")
    assert list((tmp_path / "target").iterdir()) == []


def test_an_empty_target_is_filled_and_one_filled_meanwhile_is_not_touched(full: Trained, tmp_path: Path) -> None:
    source, base = find_source(full.run, 1), BaseModel("model", str(full.model), False)
    (tmp_path / "empty").mkdir()
    write_export(source, base, tmp_path / "empty", "a card")
    assert (tmp_path / "empty" / "README.md").read_text() == "a card"
    with pytest.raises(InputError, match="is not empty"):
        write_export(source, base, tmp_path / "empty", "another card")
    assert (tmp_path / "empty" / "README.md").read_text() == "a card"


def test_the_command_says_where_it_wrote(full: Trained, tmp_path: Path) -> None:
    done = workbench("export", full.run, "--round", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"exports/run-1: full weights of round 1, 0\.\d MB, with a model card \(README\.md\)\.\n", done.stdout
    )
    assert (tmp_path / "exports" / "run-1" / "model.safetensors").is_file()


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
