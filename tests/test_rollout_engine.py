"""The transformers engine: what it samples is what the model says, whatever else is in the batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ModelError, StaleEngineError, Stopped
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.published_weights import Form, Wanted
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.sampling import choose_tokens, row_uniforms
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return load_policy(ModelSection(path=str(save_tiny_llama(tmp_path_factory.mktemp("model")))))


def prompts(count: int, samples: int = 4) -> list[Prompt]:
    return [
        Prompt(f"task-{i}", (Message.of("user", "hello " * i + "?"),), tuple(range(100 * i, 100 * i + samples)))
        for i in range(1, count + 1)
    ]


def test_greedy_decoding_equals_generate(policy: Policy) -> None:
    engine = TransformersEngine(policy)
    groups = engine.sample(prompts(5, samples=1), Sampling(24, temperature=0))
    for prompt, (completion,) in zip(prompts(5), groups, strict=True):
        batch = policy.encoder.collate([prompt], policy.device)
        expected = policy.network.generate(
            batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=24, do_sample=False
        )
        assert list(completion.token_ids) == expected[0, batch.input_ids.shape[1] :].tolist()


def test_an_output_depends_on_its_seed_and_not_on_its_batch(policy: Policy) -> None:
    together = TransformersEngine(policy, batch_size=64).sample(prompts(6), Sampling(30))
    alone = [TransformersEngine(policy, batch_size=1).sample([p], Sampling(30))[0] for p in reversed(prompts(6))][::-1]
    assert [[c.token_ids for c in g] for g in together] == [[c.token_ids for c in g] for g in alone]
    other_seeds = [Prompt(p.task_id, p.messages, tuple(s + 1 for s in p.seeds)) for p in prompts(6)]
    others = TransformersEngine(policy, batch_size=64).sample(other_seeds, Sampling(30))
    assert together[0][1].token_ids == others[0][0].token_ids  # seed 101 in both
    assert together[0][0].token_ids != others[0][0].token_ids


@pytest.mark.parametrize("sampling", [Sampling(30), Sampling(30, temperature=0.7)])
def test_logprobs_are_those_of_the_model_at_the_sampling_temperature(policy: Policy, sampling: Sampling) -> None:
    groups = TransformersEngine(policy).sample(prompts(3), sampling)
    for prompt, group in zip(prompts(3), groups, strict=True):
        prefix = list(policy.encoder.prompt_ids(prompt))
        for completion in group:
            ids = torch.tensor([prefix + list(completion.token_ids)])
            with torch.no_grad():
                logits = policy.network(ids).logits[0, len(prefix) - 1 : -1] / sampling.temperature
            expected = logits.log_softmax(-1).gather(-1, ids[0, len(prefix) :, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=2e-5, rtol=0)


def test_score_gives_the_logprobs_it_sampled_with(policy: Policy) -> None:
    engine = TransformersEngine(policy)
    groups = engine.sample(prompts(4), Sampling(20))
    scores = engine.score(prompts(4), [[c.token_ids for c in group] for group in groups])
    for group, scored in zip(groups, scores, strict=True):
        for completion, values in zip(group, scored, strict=True):
            torch.testing.assert_close(torch.tensor(values), torch.tensor(completion.logprobs), atol=2e-5, rtol=0)


def test_outputs_end_at_the_end_of_sequence_or_are_marked_truncated(policy: Policy) -> None:
    eos = policy.encoder.eos_ids
    completions = [c for g in TransformersEngine(policy).sample(prompts(8, 16), Sampling(60)) for c in g]
    assert any(not c.truncated for c in completions)
    assert any(c.truncated for c in completions)
    for completion in completions:
        inside = [token in eos for token in completion.token_ids]
        if completion.truncated:
            assert len(inside) == 60
            assert not any(inside)
        else:
            assert inside[-1]
            assert sum(inside) == 1


def test_weights_in_mid_update_or_not_taken_cannot_be_sampled(tmp_path: Path) -> None:
    policy = load_policy(ModelSection(path=str(save_tiny_llama(tmp_path))))
    engine = TransformersEngine(policy)
    policy.begin_update()
    with pytest.raises(StaleEngineError, match="mid-update"):
        engine.sample(prompts(1), Sampling(4))
    policy.finish_update(1)
    with pytest.raises(StaleEngineError, match="took policy version 0"):
        engine.sample(prompts(1), Sampling(4))
    published = policy.publish(engine.wanted)
    engine.take(published)
    assert engine.version == 1
    with pytest.raises(StaleEngineError, match="shares its policy with the learner"):
        engine.take(load_policy(ModelSection(path=str(tmp_path))).publish())
    policy.finish_update(2)
    with pytest.raises(StaleEngineError, match=r"version 1 was published from memory, where version 2 is now"):
        engine.take(published)
    with pytest.raises(StaleEngineError, match="published as WeightFolder, and this engine takes weights from memory"):
        engine.take(policy.publish(Wanted((Form.FOLDER,), folder=tmp_path)))


def test_a_prompt_that_does_not_fit_is_refused_by_name(policy: Policy) -> None:
    engine = TransformersEngine(policy)
    with pytest.raises(ModelError, match=r"task-1 .* context of 2048"):
        engine.sample(prompts(1), Sampling(2040))
    with pytest.raises(ModelError, match=r"max_prompt_tokens = 5"):
        engine.sample(prompts(1), Sampling(4, max_prompt_tokens=5))


def test_a_stop_is_honoured_within_the_batch(policy: Policy) -> None:
    calls = Counter[str]()

    def check() -> None:
        calls["checks"] += 1
        if calls["checks"] == 5:
            raise Stopped

    with pytest.raises(Stopped):
        TransformersEngine(policy).sample(prompts(2), Sampling(60), check_stop=check)
    assert calls["checks"] == 5


def test_sampled_frequencies_match_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    uniforms = row_uniforms(range(20_000), 1, torch.device("cpu"))[:, 0]
    tokens, logprobs = choose_tokens(logits.expand(20_000, -1), Sampling(1), uniforms)
    observed = torch.bincount(tokens, minlength=4) / 20_000
    torch.testing.assert_close(observed, logits[0].softmax(-1), atol=0.012, rtol=0)
    torch.testing.assert_close(logprobs, logits[0].log_softmax(-1)[tokens])


def test_top_k_and_top_p_keep_what_they_should() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    uniforms = row_uniforms(range(2_000), 1, torch.device("cpu"))[:, 0]
    rows = logits.expand(2_000, -1)
    assert set(choose_tokens(rows, Sampling(1, top_k=2), uniforms)[0].tolist()) == {0, 1}
    assert set(choose_tokens(rows, Sampling(1, top_p=0.79), uniforms)[0].tolist()) == {0, 1}
    assert set(choose_tokens(rows, Sampling(1, top_p=0.4), uniforms)[0].tolist()) == {0}
    tokens, logprobs = choose_tokens(rows, Sampling(1, top_k=2), uniforms)
    torch.testing.assert_close(logprobs[tokens == 0][0], torch.log(torch.tensor(0.625)))
