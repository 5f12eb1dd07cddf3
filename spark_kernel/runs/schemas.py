"""The columns of every table in a run folder (docs/run-folder.md explains each). A change here is a new version."""

from __future__ import annotations

import pyarrow as pa

from spark_kernel.runs.bundles import SCHEMA_VERSION

IMAGES = pa.list_(pa.struct([("sha256", pa.string()), ("path", pa.string())]))
PART = pa.struct([("type", pa.string()), ("text", pa.string()), ("image", pa.int32())])
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("parts", pa.list_(PART))]))
TEXT_MAP = pa.map_(pa.string(), pa.string())
COUNTS = pa.map_(pa.string(), pa.int64())
FIGURES = pa.map_(pa.string(), pa.float64())


def _fields(**columns: pa.DataType) -> list[pa.Field]:
    return [pa.field(name, type) for name, type in columns.items()]


TASK_FIELDS = _fields(
    id=pa.string(),
    kind=pa.string(),
    origin=pa.string(),
    problem_id=pa.string(),
    messages=MESSAGES,
    label=pa.string(),
    verifier=pa.string(),
    template_id=pa.string(),
    made_round=pa.int64(),
    images=IMAGES,
    view=pa.string(),
    sources=pa.list_(pa.string()),
    source_policy_version=pa.int64(),
    source_correct=pa.list_(pa.bool_()),
    source_group_mixed=pa.bool_(),
    gold_position=pa.string(),
    label_map=TEXT_MAP,
)
PROBLEM_FIELDS = _fields(
    round=pa.int64(),
    id=pa.string(),
    question=pa.string(),
    gold=pa.string(),
    verifier=pa.string(),
    images=IMAGES,
    meta=pa.string(),
)
ROLLOUT_FIELDS = _fields(
    round=pa.int64(),
    period=pa.string(),
    group_index=pa.int32(),
    sample=pa.int32(),
    id=pa.string(),
    task_id=pa.string(),
    problem_id=pa.string(),
    kind=pa.string(),
    origin=pa.string(),
    policy_version=pa.int64(),
    token_ids=pa.list_(pa.int32()),
    logprobs=pa.list_(pa.float64()),
    text=pa.string(),
    truncated=pa.bool_(),
    seconds=pa.float64(),
    parse=pa.string(),
    reward=pa.float64(),
    correct=pa.bool_(),
    answer=pa.string(),
    reason=pa.string(),
    advantage=pa.float64(),
)
EXCLUSION_FIELDS = _fields(
    round=pa.int64(),
    stage=pa.string(),
    reason=pa.string(),
    subject_id=pa.string(),
    kind=pa.string(),
    detail=pa.string(),
)
LIST_FIELDS = _fields(round=pa.int64())
GROUP_FIELDS = _fields(round=pa.int64(), period=pa.string(), group_index=pa.int32())


def _schema(name: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"spark_table": name, "spark_schema_version": str(SCHEMA_VERSION)})


def _with_part(fields: list[pa.Field]) -> list[pa.Field]:
    """Evaluations have parts where rounds have periods."""
    return [field.with_name("part") if field.name == "period" else field for field in fields]


SCHEMAS: dict[str, pa.Schema] = {
    "problems": _schema("problems", PROBLEM_FIELDS),
    "tasks": _schema("tasks", GROUP_FIELDS + TASK_FIELDS),
    "rollouts": _schema("rollouts", ROLLOUT_FIELDS),
    "recycled": _schema("recycled", LIST_FIELDS + TASK_FIELDS),
    "exclusions": _schema("exclusions", EXCLUSION_FIELDS),
    "planned": _schema("planned", LIST_FIELDS + TASK_FIELDS),
    "eval_problems": _schema("eval_problems", PROBLEM_FIELDS),
    "eval_tasks": _schema("eval_tasks", _with_part(GROUP_FIELDS + TASK_FIELDS)),
    "eval_rollouts": _schema("eval_rollouts", _with_part(ROLLOUT_FIELDS)),
    "eval_exclusions": _schema("eval_exclusions", EXCLUSION_FIELDS),
}
"""Schemas of the Parquet files. "planned" occurs in the journal only; the "eval_" files lie in an evaluation's folder
under their names without the prefix."""

ROUND_TABLES = ("problems", "tasks", "rollouts", "recycled", "exclusions")
EVALUATION_TABLES = ("eval_problems", "eval_tasks", "eval_rollouts", "eval_exclusions")

REPORT_SCHEMAS: dict[str, pa.Schema] = {
    "reports": pa.schema(
        _fields(
            round=pa.int64(),
            policy_version=pa.int64(),
            queue_length=pa.int64(),
            seconds=pa.float64(),
            seconds_by_phase=FIGURES,
            recycled=COUNTS,
            exclusions=COUNTS,
            balance_before=COUNTS,
            balance_after=COUNTS,
            shortcut=FIGURES,
            notes=pa.list_(pa.string()),
        )
    ),
    "kind_stats": pa.schema(
        _fields(
            round=pa.int64(),
            period=pa.string(),
            kind=pa.string(),
            origin=pa.string(),
            n=pa.int64(),
            groups=pa.int64(),
            missing=pa.int64(),
            reward_mean=pa.float64(),
            reward_low=pa.float64(),
            reward_high=pa.float64(),
            accuracy=pa.float64(),
            unparseable=pa.float64(),
            truncated=pa.float64(),
            length_mean=pa.float64(),
            all_correct=pa.float64(),
            mixed=pa.float64(),
            all_wrong=pa.float64(),
            zero_variance=pa.float64(),
            judge=FIGURES,
        )
    ),
    "updates": pa.schema(
        _fields(
            round=pa.int64(),
            period=pa.string(),
            optimizer_steps=pa.int64(),
            sequences=pa.int64(),
            loss_tokens=pa.int64(),
            loss=pa.float64(),
            kl=pa.float64(),
            entropy=pa.float64(),
            clip_share=pa.float64(),
            ratio_mean=pa.float64(),
            grad_norm=pa.float64(),
            learning_rate=pa.float64(),
            seconds=pa.float64(),
            by_kind=pa.map_(pa.string(), FIGURES),
            sampler_mismatch=FIGURES,
            notes=pa.list_(pa.string()),
        )
    ),
    "evaluations": pa.schema(_fields(round=pa.int64(), suite=pa.string(), report=pa.string())),
    "events": pa.schema(_fields(number=pa.int64(), time=pa.string(), event=pa.string(), body=pa.string())),
}
"""Tables that the reader makes from report.json and events.jsonl."""

TABLE_SCHEMAS: dict[str, pa.Schema] = {
    **{name: SCHEMAS[name] for name in ROUND_TABLES},
    **{name: SCHEMAS[name].insert(1, pa.field("suite", pa.string())) for name in EVALUATION_TABLES},
    **REPORT_SCHEMAS,
}
"""Every table as the reader gives it. The suite of an evaluation's rows is that of their folder, not in the files."""
