"""Exports of real runs: what loads, what it computes, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.models.policy import load_policy
from spark_kernel.publish.base_model import BaseModel
from spark_kernel.publish.export import find_source, write_export
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import start_run
from tests.helpers.cli import workbench
from tests.helpers.runs import tiny_config
from tests.helpers.tiny_models import save_tiny_idefics3
from tests.helpers.trained_runs import LORA, MERGED, Trained, card_of, logprobs, same, train
from workbench.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("lora"), **LORA)


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
