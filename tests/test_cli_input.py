"""What the command says to good and bad input, before any model is loaded: real processes, real exit codes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_kernel.config import RunConfig, field_names, load_config, merge_settings, preset_names, validate_config
from spark_kernel.errors import InputError
from tests.helpers.cli import workbench
from workbench.settings.flags import SETTINGS, Settings, parse_flags, split_mapping_flags


@dataclass(frozen=True)
class Arguments:
    """Of a command that takes settings and nothing else."""

    settings: SETTINGS


def parse(*arguments: str) -> dict[str, object]:
    """The settings that command-line arguments give."""
    rest, mapped = split_mapping_flags(arguments)
    parsed = parse_flags(Arguments(Settings(RunConfig())), "a command", rest)
    return merge_settings(parsed.settings.given, mapped)


def value_at(config: RunConfig, dotted: str) -> object:
    value: object = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def as_flag(value: object) -> list[str]:
    """A value as a person would type it."""
    if isinstance(value, tuple):
        return [text for item in value for text in as_flag(item)]
    if isinstance(value, str):
        return [value]
    return [yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()]


@pytest.mark.parametrize("preset", preset_names())
def test_every_setting_of_a_preset_can_be_given_as_a_flag(preset: str) -> None:
    config = load_config(preset)
    arguments = [part for name in field_names() for part in (f"--{name}", *as_flag(value_at(config, name)))]
    assert validate_config(parse(*arguments)) == config


def test_only_what_is_given_overrides() -> None:
    assert parse() == {}
    assert parse("--rollout.samples", "4", "--recycle.pairwise", "false", "--recycle.max_age", "none") == {
        "rollout": {"samples": 4},
        "recycle": {"pairwise": "false", "max_age": None},
    }


def test_a_command_may_take_some_settings_only(capsys: pytest.CaptureFixture[str]) -> None:
    some = Arguments(Settings(load_config("quickstart"), ["seed", "model.device", "rollout.vllm.sleep"]))
    given = parse_flags(some, "a command", ["--seed", "4", "--rollout.vllm.sleep", "false"])
    assert given.settings.given == {"seed": 4, "rollout": {"vllm": {"sleep": "false"}}}
    with pytest.raises(SystemExit):
        parse_flags(some, "a command", ["--rollout.samples", "4"])
    with pytest.raises(SystemExit):
        parse_flags(some, "a command", ["--help"])
    shown = capsys.readouterr().out
    assert {name for name in field_names() if f"--{name} " in shown} == {"seed", "model.device", "rollout.vllm.sleep"}
    assert "recycle" not in shown


def test_entries_of_a_mapping_have_flags_of_their_own() -> None:
    given = parse("--problems.options.path", "a.jsonl", "--problems.options.columns.gold=label", "--rounds", "3")
    assert given == {"rounds": 3, "problems": {"options": {"path": "a.jsonl", "columns": {"gold": "label"}}}}
    weights = parse("--objective.kind_weights", "{solve: 2}", "--objective.kind_weights.pairwise", "0.5")
    assert validate_config(weights).objective.kind_weights == {"solve": 2.0, "pairwise": 0.5}


def test_a_mapping_flag_without_a_value_is_refused() -> None:
    with pytest.raises(InputError, match=r"--problems\.options\.path needs a value"):
        split_mapping_flags(["--problems.options.path", "--rounds", "3"])


@pytest.mark.slow
@settings(max_examples=15)
@given(st.text(min_size=1).filter(lambda text: not text.startswith("-")))
def test_text_reaches_the_configuration_unchanged(text: str) -> None:
    assert parse("--model.path", text) == {"model": {"path": text}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "quickstrat"], 'There is no preset or file "quickstrat" (did you mean "quickstart"?)'),
        (["run", "nowhere.yaml"], "There is no configuration file nowhere.yaml"),
        (["run", "quickstart", "--rollout.sample", "4"], "no flag --rollout.sample; did you mean --rollout.samples?"),
        (["run", "quickstart", "--report_too", "wandb"], "no flag --report_too; did you mean --report_to?"),
        (["fork", "nowhere", "--recycle.zzz=4"], "no flag --recycle.zzz. There are --recycle.pointwise, --recycle."),
        (["run", "quickstart", "--rollout.samples", "0"], "rollout.samples = 0 is refused: input should be greater"),
        (["run", "quickstart", "--rollout.samples", "many"], "rollout.samples = 'many' is refused"),
        (["run", "quickstart", "--rollout.engine", "vlm"], "should be 'transformers', 'vllm' or 'vllm-server'"),
        (["run", "quickstart", "--rollout.samples", "1"], "rollout.samples = 1 leaves no group to compare with"),
        (["run", "quickstart", "--report-to", "tensorbord"], "trackio, wandb, tensorboard"),
        (["run", "quickstart", "--out", "/dev/null/run"], "/dev/null is a file. Choose another place."),
        (["run"], "PRESET|FILE"),
        (["resume", "nowhere"], "There is no run at nowhere"),
        (["resume", "nowhere", "--rounds", "0"], "--rounds 0 is refused: at least 1"),
        (["fork", "nowhere", "--rollout.samples", "3"], "There is no run at nowhere"),
        (["back", "nowhere", "--round", "1"], "There is no run at nowhere"),
        (["back", "nowhere"], "Say --round K to go back to a round, or --undo"),
        (["back", "nowhere", "--round", "1", "--undo"], "one of them"),
        (["show", "nowhere"], "There is no run at nowhere"),
        (["list", "nowhere"], "There is no folder nowhere"),
        (["compare", "nowhere", "elsewhere"], "There is no run at nowhere"),
        (["reflect", "--prompt", " "], "--prompt is empty"),
        (["reflect", "--prompt", "2 + 2", "--gold", "4", "--verifier", "maths"], 'did you mean "math"?'),
        (["reflect", "--prompt", "2 + 2", "--samples", "3"], "--samples is for --method"),
        (["reflect", "--prompt", "2 + 2", "--method", "vote", "--samples", "0"], "--samples 0 is refused"),
        (["reflect", "--prompt", "2 + 2", "--method", "vote", "--temperature", "0"], "--temperature above 0"),
        (["reflect", "--prompt", "what?", "--image", "nowhere.png"], "nowhere.png cannot be read"),
        (["models", "fetch"], "list or get NAME"),
        (["rum"], 'did you mean "run"?'),
    ],
)
def test_bad_input_is_exit_code_2_and_says_what_is_wrong(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = workbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_command_and_every_setting() -> None:
    overview = workbench("--help")
    assert overview.returncode == 0
    for name in ("run", "resume", "fork", "back", "eval", "show", "list", "compare", "reflect", "models"):
        assert f"  {name} " in overview.stdout
    explained = workbench("run", "--help")
    assert explained.returncode == 0
    for name in field_names():
        assert f"--{name}" in explained.stdout
    for name in preset_names():
        assert name in explained.stdout


def test_help_for_a_preset_shows_its_own_values() -> None:
    shown = " ".join(workbench("run", "quickstart", "--help").stdout.replace("│", " ").split())
    rate = load_config("quickstart").learner.learning_rate
    assert f"(default: {rate})" in shown
    assert "n: outputs per task. [at least 1, at most 1024]" in shown


@pytest.mark.slow
def test_help_and_listing_do_not_load_torch(tmp_path: Path) -> None:
    """Start-up time is imports: torch and transformers must not be among them."""
    blocked = tmp_path / "blocked"
    for name in ("torch", "transformers", "pyarrow"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise SystemExit('imported too early')")
    script = (
        f"import sys; sys.path.insert(0, {str(blocked)!r})\n"
        "from workbench.cli import main\n"
        "for arguments in (['--help'], ['list', '.']):\n    assert main(arguments) == 0\n"
        "main(['run', 'quickstart', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.slow
def test_a_closed_pipe_is_no_stack_trace(tmp_path: Path) -> None:
    line = f"{sys.executable} -m workbench run --help | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert "usage: workbench run" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_papers_preset_says_which_file_it_needs_before_it_fetches_a_model(tmp_path: Path) -> None:
    done = workbench("run", "spark-7b", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hub"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "problems.options.path" in line
    assert not (tmp_path / "runs").exists()
