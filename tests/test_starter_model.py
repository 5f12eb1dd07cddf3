"""The shipped starter model, its tokenizer, and the script that makes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_kernel.prompts import build
from spark_kernel.prompts.templates import TEMPLATES

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = {"starter": "starter-model.md", "starter_2": "starter-2.md", "starter_2_spark": "results/quickstart.md"}
"""The folders of the shipped models, each with its page of figures."""
FOLDER = ROOT / "spark_kernel" / "models" / "starter"
sys.path.insert(0, str(ROOT / "scripts"))

import make_starter  # noqa: E402
from starter import demonstrations, measuring  # noqa: E402
from starter.muon import Muon  # noqa: E402
from starter.tokenizer import END, PAD, SPECIAL, START, prompt_text  # noqa: E402

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def examples():
    data = demonstrations.Demonstrations(make_starter.SEED, make_starter.PUZZLES.weights)
    return [data.demonstration(index) for index in range(3000)]


@pytest.fixture(scope="module")
def tasks(examples):
    return [example for example in examples if example.task is not None]


# The folder


@pytest.mark.slow
def test_a_fresh_process_without_network_loads_the_folder_and_reads_the_same_tokens():
    """Another process, offline: what a user's first cell does."""
    program = (
        "import json, sys; from transformers import AutoModelForCausalLM, AutoTokenizer;"
        "t = AutoTokenizer.from_pretrained(sys.argv[1]); m = AutoModelForCausalLM.from_pretrained(sys.argv[1]);"
        "print(json.dumps([t('Take 17, add 25 \\\\boxed{42} ünder')['input_ids'], str(m.dtype), m.num_parameters()]))"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(FOLDER)], capture_output=True, text=True, env=environment, check=True
    )
    ids, dtype, parameters = json.loads(done.stdout.strip().splitlines()[-1])
    assert ids == Tokenizer.from_file(str(FOLDER / "tokenizer.json")).encode("Take 17, add 25 \\boxed{42} ünder").ids
    assert dtype == "torch.float32"
    assert parameters < 1_000_000


@pytest.mark.parametrize("name", SHIPPED)
def test_the_folder_is_small_and_readable_and_holds_no_pickle(name):
    files = list((FOLDER.parent / name).iterdir())
    assert sum(file.stat().st_size for file in files) < 4 * MEBIBYTE
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}


@pytest.mark.parametrize("name", SHIPPED)
def test_generation_settings_sample_the_plain_distribution_and_stop_at_the_end_token(tokenizer, name):
    model = AutoModelForCausalLM.from_pretrained(FOLDER.parent / name, local_files_only=True)
    config = model.generation_config
    assert (config.do_sample, config.temperature, config.top_p) == (True, 1.0, 1.0)
    assert not config.top_k
    assert config.eos_token_id == tokenizer.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id
    assert model.config.vocab_size == len(tokenizer)


# The tokenizer


@pytest.mark.slow
def test_the_auto_class_reads_texts_as_the_file_says(tokenizer, tasks):
    """A class mapped from the model type would bring its own splitting rules."""
    bare = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for text in [prompt_text(t.user) + t.response for t in tasks[:50]] + [" 7 x 12345 \\frac{1}{2} é\n\n"]:
        assert tokenizer(text)["input_ids"] == bare.encode(text).ids


@given(st.text())
@settings(max_examples=100)
def test_any_text_survives_a_round_trip(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


@given(st.text(alphabet=" 0123456789\n\\boxed{}<>/_answer.,+-=*vs"))
@settings(max_examples=100)
def test_text_like_the_models_own_survives_a_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@given(st.text().filter(lambda text: not any(special in text for special in SPECIAL)))
@settings(max_examples=100)
def test_no_text_without_its_very_name_becomes_a_special_token(tokenizer, text):
    assert not set(tokenizer(text)["input_ids"]) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize("around", ["{}", " {}", "add {}", "a {}, b", "= {}\n", "\\boxed{{{}}}", "({})", "{} {}"])
def test_every_integer_up_to_999_is_one_token_whatever_stands_around_it(tokenizer, around):
    alone = [tokenizer.convert_tokens_to_ids(str(number)) for number in range(1000)]
    assert len(set(alone)) == 1000
    assert tokenizer.unk_token_id not in alone or tokenizer.unk_token_id is None
    for number in range(1000):
        text = around.replace("{}", str(number)) if around.count("{}") > 1 else around.format(number)
        ids = tokenizer(text)["input_ids"]
        assert ids.count(alone[number]) == text.count(str(number)), text
        digits = [t for t in tokenizer.convert_ids_to_tokens(ids) if any(c.isdigit() for c in t)]
        assert digits == [str(number)] * text.count(str(number))


def test_special_tokens_are_distinct_single_and_named_as_documented(tokenizer):
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (START, END, PAD)
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert tokenizer("plain text")["input_ids"][0] != tokenizer.bos_token_id
    assert tokenizer.padding_side == "left"


def test_plain_english_takes_few_tokens(tokenizer):
    text = "Is this answer correct? Work it out yourself, then write down what you think and why."
    assert len(tokenizer(text)["input_ids"]) <= 1.6 * len(text.split())


def test_the_chat_template_is_what_the_training_saw(tokenizer):
    for template in TEMPLATES:
        chat = [{"role": "user", "content": template.text}]
        rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        assert rendered == prompt_text(template.text)
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}
    ]
    assert tokenizer.apply_chat_template(parts, tokenize=False) == f"{START}user\nab{END}\n"


def test_every_prompt_of_the_quickstart_fits_its_limit(tokenizer, tasks):
    lengths = [len(ids) for ids in tokenizer([prompt_text(t.user) for t in tasks])["input_ids"]]
    assert max(lengths) <= 256
    outputs = [len(ids) for ids in tokenizer([t.response for t in tasks])["input_ids"]]
    assert max(outputs) + 1 <= 64


# The shipped weights


@pytest.mark.slow
@pytest.mark.parametrize(("name", "subject"), list(zip(SHIPPED, ("chains", "puzzles", "puzzles"), strict=True)))
def test_the_shipped_weights_solve_as_often_as_documented(name, subject):
    """150 problems x 2: the sample's interval must meet the documented one."""
    torch.set_num_threads(1)
    model, tokenizer = measuring.load(FOLDER.parent / name)
    problems = {p.id: p for p in measuring.held_out_problems(150, 101, subject)}
    tasks = [build.solve_task(p, seed=101, round=k) for p in problems.values() for k in range(2)]
    found = measuring.rate("solve", measuring.sample(model, tokenizer, tasks, problems, seed=1))
    low, high = _documented(SHIPPED[name], "solved, sampled at temperature 1")
    assert found.low <= high
    assert found.high >= low


# The script


@pytest.mark.parametrize("shape", [(128, 128), (256, 128), (64, 128)])
def test_muon_in_float32_takes_the_steps_of_torchs_own(shape):
    """To the precision of the bfloat16 in which torch's orthogonalises."""
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn((4, *shape), generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    for optimizer in (
        Muon([ours], lr=1e-2),
        torch.optim.Muon([theirs], lr=1e-2, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    ):
        for gradient in gradients:
            optimizer.param_groups[0]["params"][0].grad = gradient.clone()
            optimizer.step()
    moved = (start - theirs).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.03 * moved


@pytest.mark.slow
@pytest.mark.parametrize("recipe", make_starter.RECIPES)
def test_the_script_writes_the_same_bytes_twice(tmp_path, recipe):
    for name in ("one", "two"):
        command = [sys.executable, str(ROOT / "scripts" / "make_starter.py"), "--out", str(tmp_path / name)]
        command += ["--steps", "3", "--recipe", recipe]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "two").iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.slow
def test_the_shipped_tokenizer_is_the_one_the_script_makes():
    made = json.loads(make_starter.make_tokenizer(make_starter.SEED).to_str())
    shipped = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    assert shipped["model"] == made["model"]
    assert shipped["pre_tokenizer"] == made["pre_tokenizer"]
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        for name in SHIPPED:
            assert (FOLDER.parent / name / file).read_bytes() == (FOLDER / file).read_bytes(), (name, file)


def _documented(page: str, figure: str) -> tuple[float, float]:
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells and cells[0] == figure:
            low, high = cells[2].split(" to ")
            return float(low), float(high)
    raise AssertionError(f"docs/{page} has no line for {figure!r}")
