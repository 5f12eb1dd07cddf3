"""What a chat template is given reaches every place that writes a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_kernel.config import RunConfig, load_config, validate_config
from spark_kernel.errors import InputError
from spark_kernel.evaluate.parts import assemble_for_evaluation
from spark_kernel.evaluate.standalone import model_subject
from spark_kernel.models.load import load_encoder
from spark_kernel.models.policy import load_policy
from spark_kernel.problems.checked_stream import make_stream
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.vllm_requests import sent_ids
from spark_kernel.training.assembly import assemble
from spark_kernel.training.lifecycle import start_run
from spark_kernel.verify.pool import VerifierPool
from tests.helpers.runs import tiny_config, write_problems
from tests.helpers.tiny_models import CHAT_TEMPLATE, save_talkative_llama
from workbench.app.catalog import Catalog, ModelChoice
from workbench.app.desk import load_respondent
from workbench.cli import main
from workbench.commands.app import AppArguments, _model_settings

GIVEN = {"mark": "MARKED"}
PROMPT = Prompt("t", (Message.of("user", "What?"),), (1,))


def marked_config(folder: Path, **overrides: object) -> RunConfig:
    """A tiny run whose template writes its argument `mark` where it is given."""
    folder.mkdir(parents=True, exist_ok=True)
    write_problems(folder / "problems.jsonl")
    model = save_talkative_llama(folder / "model")
    template = model / "chat_template.jinja"
    template.write_text("{% if mark is defined %}{{ mark }}{% endif %}" + CHAT_TEMPLATE, encoding="utf-8")
    return tiny_config(folder, **({"model__chat_template_kwargs": GIVEN} | overrides))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return marked_config(tmp_path_factory.mktemp("marked"), evaluation__every=0)


def is_marked(ids: tuple[int, ...] | list[int], encoder) -> bool:  # type: ignore[no-untyped-def]
    return encoder.tokenizer.decode(list(ids)).startswith("MARKED")


def test_the_encoder_and_the_check_before_training(config: RunConfig) -> None:
    encoder, _ = load_encoder(config.model)
    assert encoder.chat_text(PROMPT.messages).startswith("MARKED")
    long = config.model_copy(
        update={"model": config.model.model_copy(update={"chat_template_kwargs": {"mark": "long " * 400}})}
    )
    with VerifierPool(1, 5.0, 1.0) as pool, pytest.raises(InputError, match=r"more than rollout.max_prompt_tokens"):
        make_stream(long, pool)


def test_the_policy_and_both_vllm_engines(config: RunConfig) -> None:
    """Both vLLM engines send what `sent_ids` gives: token ids, no text that a server would put under a template."""
    encoder = load_policy(config.model).encoder
    assert is_marked(encoder.prompt_ids(PROMPT), encoder)
    sent, expected = sent_ids(encoder, PROMPT, Sampling(8), 2000)
    assert sent == expected
    assert is_marked(sent, encoder)


def test_a_run_and_its_evaluation(config: RunConfig, tmp_path: Path) -> None:
    for parts in (assemble(config, images_root=tmp_path), assemble_for_evaluation(config)):
        try:
            assert is_marked(parts.model.encoder.prompt_ids(PROMPT), parts.model.encoder)
        finally:
            parts.close()


def test_eval_of_another_model_takes_its_own_arguments(config: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert model_subject(config.model.path, file, {}).config.model.chat_template_kwargs == GIVEN
    other = save_talkative_llama(tmp_path / "other")
    assert model_subject(str(other), file, {}).config.model.chat_template_kwargs == {}
    given = {"model": {"chat_template_kwargs": {"a": 1}}}
    assert model_subject(str(other), file, given).config.model.chat_template_kwargs == {"a": 1}


@pytest.mark.slow
def test_the_app_with_a_run_and_with_a_model(config: RunConfig, tmp_path: Path) -> None:
    with start_run(config, tmp_path / "runs" / "mine") as trainer:
        trainer.train(rounds=1)
        trainer.checkpoint()
    catalog = Catalog(tmp_path / "runs", downloaded=False)
    respondent = load_respondent(catalog.model("mine, round 1"))
    encoder = respondent.engine._policy.encoder  # type: ignore[attr-defined]
    assert is_marked(encoder.prompt_ids(PROMPT), encoder)
    path = config.model.path
    settings = _model_settings(AppArguments(model=(path,), chat_template_kwargs="{mark: MARKED}"))
    catalog = Catalog(tmp_path / "none", (path,), downloaded=False, settings=settings)
    encoder = load_respondent(catalog.model(path)).engine._policy.encoder  # type: ignore[attr-defined]
    assert is_marked(encoder.prompt_ids(PROMPT), encoder)
    plain = load_respondent(ModelChoice(path, path)).engine._policy.encoder  # type: ignore[attr-defined]
    assert not is_marked(plain.prompt_ids(PROMPT), plain)
    with pytest.raises(InputError, match="name one"):
        _model_settings(AppArguments(chat_template_kwargs="{mark: MARKED}"))


def test_reflect(config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from spark_kernel.models import policy as module

    loaded = []
    real = module.load_model
    monkeypatch.setattr(module, "load_model", lambda settings: loaded.append(real(settings)) or loaded[-1])
    asked = ["reflect", "--prompt", "What?", "--model", config.model.path, "--max_new_tokens", "4"]
    assert main([*asked, "--chat_template_kwargs", "{mark: MARKED}"]) == 0
    assert is_marked(loaded[0].encoder.prompt_ids(PROMPT), loaded[0].encoder)
    assert main([*asked, "--chat_template_kwargs", "[1]"]) == 2
    assert "a mapping such as {enable_thinking: false}" in capsys.readouterr().err
    assert main([*asked, "--chat_template_kwargs", "{tokenize: true}"]) == 2
    assert "tokenize cannot be given" in capsys.readouterr().err


def test_flags_give_a_mapping_or_its_entries() -> None:
    from workbench.settings.flags import split_mapping_flags

    rest, found = split_mapping_flags(["--model.chat_template_kwargs.enable_thinking", "false"])
    assert (rest, found) == ([], {"model": {"chat_template_kwargs": {"enable_thinking": False}}})
    assert load_config("quickstart", **{"model__chat_template_kwargs": {"x": [1, "y"]}}).model.chat_template_kwargs == {
        "x": [1, "y"]
    }
    assert validate_config({"model": {"thinking_tags": {"<a>": "</a>"}}}).model.thinking_tags == {"<a>": "</a>"}
