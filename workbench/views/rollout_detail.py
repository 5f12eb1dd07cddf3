"""Everything about one output: its prompt, tokens, group, and what judges said about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_kernel.errors import RunFolderError
from spark_kernel.runs.reader import RunReader
from workbench.views.rollouts import RolloutTable, rollout_table
from workbench.views.round_tables import TableCache
from workbench.views.task_rows import ImageView, image_views, label_letters, prompt_messages
from workbench.views.verdicts import Verdict, verdicts_about


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an output: its text (empty without a decoder), id, and log-probability [nats]."""

    text: str
    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another output of the same task."""

    id: str
    sample: int
    answer: str | None
    correct: bool | None
    reward: float | None
    advantage: float | None


@dataclass(frozen=True, slots=True)
class RolloutDetail:
    """Everything about one output.

    `row`: its row, as in `RolloutTable`. `messages`: the exact prompt as (role, text), `<image>` where an image stands.
    `label_map`: what each letter means where the prompt asked for letters. `source_ids`: the outputs that the prompt
    shows, in order. `tokens`: see `Token`. `verdicts`: about this output. `siblings`: the whole group, this one too.
    """

    row: Mapping[str, Any]
    messages: tuple[tuple[str, str], ...]
    images: tuple[ImageView, ...]
    template_id: str
    label_map: Mapping[str, str] | None
    source_ids: tuple[str, ...]
    source_correct: tuple[bool, ...]
    tokens: tuple[Token, ...]
    verdicts: tuple[Verdict, ...]
    siblings: tuple[Sibling, ...]


def rollout_detail(
    cache: TableCache,
    round: int,
    rollout_id: str,
    *,
    decode: Callable[[Sequence[int]], Sequence[str]] | None = None,
    ahead: int = 1,
) -> RolloutDetail:
    """Everything about one output of a round.

    Args:
        decode: token ids to the text of each, such as `lambda ids: [tokenizer.decode([i]) for i in ids]`; without it
            tokens have no text.

    Raises:
        RunFolderError: no such round, or no such output in it.
    """
    tables = cache.round(round)
    table = rollout_table(cache, [round], ahead=ahead)
    return output_detail(
        cache.reader, round, rollout_id, table, tables.rollouts, tables.tasks, "period",
        tuple(verdicts_about(cache, round, ahead).get(rollout_id, ())), decode,
    )  # fmt: skip


def output_detail(
    reader: RunReader,
    round: int,
    rollout_id: str,
    table: RolloutTable,
    rollouts: pa.Table,
    tasks: pa.Table,
    place: str,
    verdicts: tuple[Verdict, ...],
    decode: Callable[[Sequence[int]], Sequence[str]] | None,
) -> RolloutDetail:
    """Everything about one output of a round or an evaluation (`place`: period or part).

    Raises:
        RunFolderError: no such output.
    """
    row = next(iter(table.table.filter(pc.equal(table.table["id"], rollout_id)).to_pylist()), None)
    if row is None:
        raise RunFolderError(f"Round {round} of {reader.info.name} has no output {rollout_id}.")
    raw = rollouts.filter(pc.equal(rollouts["id"], rollout_id)).to_pylist()[0]
    at = pc.and_(pc.equal(tasks[place], raw[place]), pc.equal(tasks["group_index"], raw["group_index"]))
    task = tasks.filter(at).to_pylist()[0]
    group = table.table.filter(
        pc.and_(pc.equal(table.table["task_id"], raw["task_id"]), pc.equal(table.table["period"], raw[place]))
    )
    ids = raw["token_ids"]
    pieces = list(decode(ids)) if decode is not None else [""] * len(ids)
    return RolloutDetail(
        row=row,
        messages=prompt_messages(task),
        images=image_views(reader, task["images"]),
        template_id=task["template_id"],
        label_map=label_letters(task),
        source_ids=tuple(task["sources"]),
        source_correct=tuple(task["source_correct"]),
        tokens=tuple(Token(t, i, p) for t, i, p in zip(pieces, ids, raw["logprobs"], strict=True)),
        verdicts=verdicts,
        siblings=tuple(
            Sibling(r["id"], r["sample"], r["answer"], r["correct"], r["reward"], r["advantage"])
            for r in group.to_pylist()
        ),
    )
