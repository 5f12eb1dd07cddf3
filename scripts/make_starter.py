"""Make the built-in starter models: the first from nothing, the second from the first, with puzzles.

OMP_NUM_THREADS=1 python scripts/make_starter.py --out spark_kernel/models/starter
OMP_NUM_THREADS=1 python scripts/make_starter.py --recipe puzzles --out /tmp/puzzles

One seed decides everything; the same machine and versions give the same bytes. docs/starter-model.md says what the
demonstrations are, how long this takes and what the results can do (measured by scripts/measure_starter.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from starter.demonstrations import Demonstrations
from starter.tokenizer import END, MAX_TOKENS, PAD, START, for_transformers, prompt_text, train_tokenizer
from starter.training import Schedule, Shape, new_model, train
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from spark_kernel.problems.held_out import CANONICAL_FORM, FIRST_FORM

SEED = 20240817


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a starter is made of.

    Attributes:
        weights: share of each kind of demonstration.
        form: of the canonical text, by which problems are held out.
        start: the folder of the starter that it goes on from, tokenizer included; none: from nothing.
        afterwards: a second training on further demonstrations, in which half of what judges and reflects about puzzles
            puts nothing in: two habits, of which reinforcement learning can find the better.
    """

    weights: Mapping[str, float]
    form: int
    schedule: Schedule
    start: Path | None = None
    afterwards: Schedule | None = None


# Little solving, for every kind works its problem out.
STARTER = Recipe(
    {"solve": 0.12, "pointwise": 0.2, "pairwise": 0.14, "reflection": 0.08, "sums": 0.3, "compare": 0.16},
    FIRST_FORM,
    Schedule(steps=900, matrix_rate=1e-2, vector_rate=5e-3, micro_batch_tokens=4096, muon="torch"),
)
PUZZLES = Recipe(
    {
        "solve": 0.04, "pointwise": 0.03, "pairwise": 0.02, "reflection": 0.01,
        "puzzle-solve": 0.28, "puzzle-pointwise": 0.2, "puzzle-pairwise": 0.1, "puzzle-reflection": 0.1,
        "sums": 0.1, "compare": 0.03, "facts": 0.09,
    },
    CANONICAL_FORM,
    Schedule(steps=4000, matrix_rate=5e-3, vector_rate=2.5e-3),
    Path(__file__).parent.parent / "spark_kernel" / "models" / "starter",
    Schedule(steps=300, matrix_rate=1e-3, vector_rate=5e-4),
)  # fmt: skip
RECIPES = {"starter": STARTER, "puzzles": PUZZLES}
WORD_WEIGHTS = {"solve": 0.2, "pointwise": 0.1, "pairwise": 0.08, "reflection": 0.07, "sums": 0.43, "compare": 0.12}
"""Shares for the texts that the tokenizer's words come from, so that they do not move with the first recipe's."""
WORD_TOKENS = 400
PROSE = Path(__file__).parent / "starter" / "prose.txt"
THREADS = 1
GLANCE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--recipe", choices=RECIPES, default="starter", help="which one (default: the first)")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.recipe]
    if arguments.steps:
        recipe = shortened(recipe, arguments.steps)
    make(arguments.out, recipe, seed=arguments.seed)


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with so many steps, and no more than that afterwards."""
    afterwards = recipe.afterwards
    if afterwards is not None:
        afterwards = replace(afterwards, steps=min(steps, afterwards.steps))
    return replace(recipe, schedule=replace(recipe.schedule, steps=steps), afterwards=afterwards)


def make(out: Path, recipe: Recipe, *, seed: int) -> None:
    """Train a starter and save it to a folder that transformers loads as it is."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    data = Demonstrations(seed, recipe.weights, recipe.form)
    if recipe.start is None:
        tokenizer = make_tokenizer(seed)
        model = new_model(tokenizer, Shape(), seed)
    else:
        tokenizer = Tokenizer.from_file(str(recipe.start / "tokenizer.json"))
        model = LlamaForCausalLM.from_pretrained(recipe.start, local_files_only=True)
    train(model, tokenizer, data, recipe.schedule)
    if recipe.afterwards is not None:
        further = Demonstrations(seed + 1, recipe.weights, recipe.form, glance=GLANCE)
        train(model, tokenizer, further, recipe.afterwards)
    save(model, tokenizer, out)


def make_tokenizer(seed: int) -> Tokenizer:
    """The tokenizer, its words learnt from the tasks among some demonstrations and from plain prose."""
    data = Demonstrations(seed, WORD_WEIGHTS, FIRST_FORM)
    tasks = [d for d in map(data.demonstration, range(4000)) if d.task]
    prose = PROSE.read_text(encoding="utf-8").splitlines()
    return train_tokenizer([prompt_text(d.user) + d.response for d in tasks] + prose * 20, WORD_TOKENS)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write weights, configuration, tokenizer, chat template and generation settings."""
    ids = {name: tokenizer.token_to_id(token) for name, token in (("bos", START), ("eos", END), ("pad", PAD))}
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=64,
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
        pad_token_id=ids["pad"],
    )
    assert model.config.max_position_embeddings == MAX_TOKENS
    model.save_pretrained(out)
    for_transformers(tokenizer).save_pretrained(out)
    settings = out / "tokenizer_config.json"
    stored = json.loads(settings.read_text(encoding="utf-8"))
    stored.pop("backend", None)
    # The one name of the class that transformers 4 and 5 both know.
    stored["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    for file in out.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
