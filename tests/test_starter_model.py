"""The shipped starter model, its tokenizer, and the script that makes it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_kernel.keyed_random import content_hash, keyed_random
from spark_kernel.problems.arithmetic import ArithmeticSource, chain_of
from spark_kernel.problems.held_out import CANONICAL_FORM, is_held_out, may_be_evaluated
from spark_kernel.problems.puzzles.source import PuzzlesSource
from spark_kernel.prompts import build
from spark_kernel.prompts.templates import TEMPLATES
from spark_kernel.prompts.verdicts import read_answer, read_verdict
from spark_kernel.records import Kind, Origin, Parse, View
from spark_kernel.verify import VerifyRequest, score_request

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "spark_kernel" / "models" / "starter"
DOCUMENT = ROOT / "docs" / "starter-model.md"
sys.path.insert(0, str(ROOT / "scripts"))

import make_starter  # noqa: E402
from starter import chains, demonstrations, measuring, pieces, puzzles, training  # noqa: E402
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


@pytest.fixture(scope="module")
def about_chains(tasks):
    return [example for example in tasks if example.task.problem_id.startswith("arithmetic-")]


@pytest.fixture(scope="module")
def about_puzzles(examples):
    """Demonstrations with the puzzles they are about."""
    data = demonstrations.Demonstrations(make_starter.SEED, make_starter.PUZZLES.weights)
    return [
        (example, data.puzzle(index))
        for index, example in enumerate(examples)
        if example.task is not None and example.task.problem_id.startswith("puzzle-")
    ]


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


def test_the_folder_is_small_and_readable_and_holds_no_pickle():
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) < 4 * MEBIBYTE
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}


def test_generation_settings_sample_the_plain_distribution_and_stop_at_the_end_token(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True)
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


# The demonstrations


@pytest.mark.parametrize("subject", ["arithmetic-", "puzzle-"])
def test_demonstrations_cover_every_template_view_origin_and_letter_map(tasks, subject):
    own = [t.task for t in tasks if t.task.problem_id.startswith(subject)]
    assert {task.template_id for task in own} == {template.id for template in TEMPLATES if template.words is None}
    recycled = [task for task in own if task.kind is not Kind.SOLVE]
    assert {(t.kind, t.view, t.origin) for t in recycled} == {
        (kind, view, origin)
        for kind in (Kind.POINTWISE, Kind.PAIRWISE, Kind.REFLECTION)
        for view in View
        for origin in (Origin.SOLVE, Origin.REFLECTION)
    }
    assert {t.label_map["A"] for t in recycled if t.label_map} == {"Yes", "No"}


def test_every_demonstration_reads_as_its_label(tasks):
    for example in tasks:
        task = example.task
        if not task.kind.judges:
            assert read_answer(example.response)
            continue
        letters = task.kind is Kind.PAIRWISE or task.label_map
        reading = read_verdict(example.response, ("A", "B") if letters else ("Yes", "No"))
        assert reading.parse is Parse.OK
        meaning = task.label_map[reading.verdict] if task.label_map else reading.verdict
        assert meaning == task.label


def test_labels_are_the_truth_by_an_independent_calculation(about_chains):
    """The shown candidate's box against the question's own numbers, worked out anew from the text."""
    for example in about_chains:
        task = example.task
        answer = _evaluate(example.user)
        if not task.kind.judges:
            assert int(task.label) == answer == int(read_answer(example.response))
        elif task.kind is Kind.POINTWISE:
            assert (task.label == "Yes") == (_shown(example.user, "answer") == answer)
        else:
            assert _shown(example.user, f"answer_{task.label.lower()}") == answer
            assert _shown(example.user, "answer_a") != _shown(example.user, "answer_b")


def test_labels_of_puzzles_are_what_the_verifier_says_of_the_shown_answers(about_puzzles):
    assert len(about_puzzles) > 1000
    for example, problem in about_puzzles:
        task = example.task
        assert problem.question in example.user
        if not task.kind.judges:
            assert _satisfies(read_answer(example.response), problem)
        elif task.kind is Kind.POINTWISE:
            assert (task.label == "Yes") == _satisfies(_shown_text(example.user, "answer"), problem)
        else:
            for letter in "AB":
                shown = _shown_text(example.user, f"answer_{letter.lower()}")
                assert (task.label == letter) == _satisfies(shown, problem)


def test_every_line_about_a_puzzle_is_true_and_a_check_ends_with_what_fails(about_puzzles):
    """By Python's own arithmetic; what a check's last line says is what the judgement or reflection then does."""
    for example, _ in about_puzzles:
        kind = example.task.kind
        *lines, last = [line for line in example.response.split("\n") if line not in ("correct", "not correct")]
        held = [_line_holds(line) for line in lines]
        assert lines
        if kind is Kind.SOLVE:
            assert all(held)
        elif kind is Kind.REFLECTION:
            kept = last == rf"\boxed{{{_shown_text(example.user, 'answer')}}}"
            assert held.count(False) == (not kept)
            assert held[-1], "a check that holds, or the working of another answer"
        else:
            assert all(held[:-1])
            assert held[-1] == (example.task.label == ("Yes" if kind is Kind.POINTWISE else "A"))


def test_labels_are_balanced(tasks):
    for kind, label in ((Kind.POINTWISE, "Yes"), (Kind.PAIRWISE, "A")):
        labels = [t.task.label for t in tasks if t.task.kind is kind]
        share = labels.count(label) / len(labels)
        assert abs(share - 0.5) < 2.6 * (0.25 / len(labels)) ** 0.5  # 99 % of fair coins


@pytest.mark.slow
def test_no_demonstration_is_made_of_a_held_out_problem():
    data = demonstrations.Demonstrations(make_starter.SEED, make_starter.PUZZLES.weights)
    for draw, source in (
        (data.problem, ArithmeticSource(seed=make_starter.SEED)),
        (data.puzzle, PuzzlesSource(seed=make_starter.SEED)),
    ):
        shown = [draw(index) for index in range(1500)]
        assert not any(is_held_out(problem, 0.1, CANONICAL_FORM) for problem in shown)
        assert not any(may_be_evaluated(problem, 0.1, CANONICAL_FORM) for problem in shown)
        assert any(is_held_out(source.problem(i), 0.1, CANONICAL_FORM) for i in range(200)), "there is something to do"


def test_a_task_prompt_is_the_one_the_kernel_builds():
    data = demonstrations.Demonstrations(3, {"solve": 1.0})
    problem = data.problem(11)
    assert data.demonstration(11).user == build.solve_task(problem, seed=3, round=11).messages[0].text


@pytest.mark.parametrize(("recipe", "digest"), [("starter", "2b282ce3e0fd"), ("puzzles", "b218aed8314b")])
def test_the_demonstrations_are_still_those_that_were_measured(recipe, digest):
    """A change of prompts or problems that fails here makes the script's models others than those of the page."""
    chosen = make_starter.RECIPES[recipe]
    data = demonstrations.Demonstrations(make_starter.SEED, chosen.weights, chosen.form)
    shown = [data.demonstration(index) for index in range(1000)]
    assert content_hash(*(d.user + d.response for d in shown)) == digest


def test_wrong_candidates_are_wrong_and_look_like_work():
    for index in range(500):
        problem = ArithmeticSource(seed=5).problem(index)
        chain = chain_of(problem)
        other = chains.mistaken(chain, keyed_random(5, "test", index))
        assert other.answer != chain.answer
        assert len(other.steps) == len(chain.steps)
        assert all(0 <= step.after <= pieces.LARGEST for step in other.steps)


def test_wrong_answers_to_puzzles_are_wrong_and_of_the_kind_asked_for():
    source = PuzzlesSource(seed=5, **demonstrations.PUZZLE_OPTIONS)
    for index in range(400):
        problem = source.problem(index)
        other = puzzles.mistaken_answer(problem, problem.meta["example"], keyed_random(5, "test", index))
        score = score_request(VerifyRequest(rf"\boxed{{{other}}}", problem, build.solve_task(problem, seed=0, round=1)))
        assert (score.correct, score.parse) == (False, Parse.OK), (problem.question, other)


def test_only_results_of_drills_and_whole_responses_of_tasks_are_learnt(tokenizer, examples):
    rows = training.encode(tokenizer.backend_tokenizer, examples[:300])
    for example, row in zip(examples[:300], rows, strict=True):
        learnt = tokenizer.decode([i for i, counts in zip(row.ids, row.weights, strict=True) if counts])
        expected = "".join(text for text, weight in example.pieces if weight)
        assert learnt == expected + (END if example.task else "")


def test_a_judgements_comparison_tells_its_verdict(about_chains):
    """ "off by 0" goes with Yes, and in a pair with the right one only."""
    for example in about_chains:
        gaps = [int(gap) for gap in re.findall(r"off by (\d+)", example.response)]
        if example.task.kind is Kind.POINTWISE:
            assert (gaps == [0]) == (example.task.label == "Yes")
        elif example.task.kind is Kind.PAIRWISE:
            assert (gaps[0] == 0, gaps[1] == 0) == (example.task.label == "A", example.task.label == "B")


# The shipped weights


@pytest.mark.slow
def test_the_shipped_weights_solve_as_often_as_documented():
    """150 problems x 2: the sample's interval must meet the documented one."""
    torch.set_num_threads(1)
    model, tokenizer = measuring.load(FOLDER)
    problems = {p.id: p for p in measuring.held_out_problems(150, 101, "chains")}
    tasks = [build.solve_task(p, seed=101, round=k) for p in problems.values() for k in range(2)]
    found = measuring.rate("solve", measuring.sample(model, tokenizer, tasks, problems, seed=1))
    low, high = _documented("solved, sampled at temperature 1")
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


def _documented(figure: str) -> tuple[float, float]:
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells and cells[0] == figure:
            low, high = cells[2].split(" to ")
            return float(low), float(high)
    raise AssertionError(f"docs/starter-model.md has no line for {figure!r}")


def _satisfies(answer: str, problem) -> bool:
    task = build.solve_task(problem, seed=0, round=1)
    return score_request(VerifyRequest(rf"\boxed{{{answer}}}", problem, task)).correct is True


def _line_holds(line: str) -> bool:
    """Whether a check's line says that something holds; that what it says is true is asserted."""
    if match := re.fullmatch(r"(-?\d+) vs (-?\d+) off by (\d+)", line):
        mine, theirs, gap = map(int, match.groups())
        assert abs(mine - theirs) == gap, line
        return gap == 0
    if match := re.fullmatch(r"(-?\d+) ([<>]) (-?\d+) (yes|no)", line):
        assert eval("".join(match.groups()[:3])) == (match[4] == "yes"), line
        return match[4] == "yes"
    if match := re.fullmatch(r"(\d+) (yes|no)", line):
        return match[2] == "yes"
    left, right = line.replace("mod", "%").split(" = ")
    assert eval(left) == int(right), line
    return True


def _shown_text(user: str, tag: str) -> str:
    """The answer between tags: as it is in answer view, in its box in full view."""
    inside = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", user, re.DOTALL).group(1)
    return read_answer(inside) or inside


def _evaluate(user: str) -> int:
    """The value of the chain in a prompt, read from its words."""
    question = re.search(r"(?:Start with|Take|Begin at) (\d+), (.*?)\.", user)
    value = int(question.group(1))
    for verb, operand in re.findall(r"(add|take away|subtract|multiply by) (\d+)", question.group(2)):
        number = int(operand)
        value = value + number if verb == "add" else value * number if verb == "multiply by" else value - number
    return value


def _shown(user: str, tag: str) -> int:
    """The number that a candidate between tags ends with: bare in answer view, boxed in full view."""
    inside = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", user, re.DOTALL).group(1)
    return int(re.findall(r"\d+", inside)[-1])
