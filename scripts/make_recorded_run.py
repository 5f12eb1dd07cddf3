"""Make the recorded runs that ship with the package (in workbench/recorded): train them, then pack them.

OMP_NUM_THREADS=1 python scripts/make_recorded_run.py
OMP_NUM_THREADS=1 python scripts/make_recorded_run.py --arm policy-only

A few minutes each on one core. The runs are real: the quickstart with fewer and smaller rounds, and the same without
judging. Packing rounds log-probabilities to two digits behind the point and changes no other value: tables are written
again with stronger compression and without the copy of Arrow's schema, and what is of no use to a reader is left out
(weights, lock). On the same versions and machine a second run gives the same records; only times differ.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from spark_kernel.config import load_config, merge_settings
from spark_kernel.runs.reader import TABLES, RunReader
from spark_kernel.runs.schemas import TABLE_SCHEMAS
from spark_kernel.training.lifecycle import start_run
from workbench.commands import quiet_transformers
from workbench.recorded import NAME, POLICY_ONLY, recorded_run

SETTINGS = {
    "base": "quickstart",
    "rounds": 12,
    "threads": 1,
    "problems": {"per_round": 48},
    "recycle": {"judge_quota": 96, "reflection_quota": 48},
    "learner": {"minibatch_sequences": 96},
    "evaluation": {"every": 6},
    "checkpoint": {"every": 12, "keep": 1},
}
ARMS: dict[str, dict[str, Any]] = {
    NAME: {},
    POLICY_ONLY: {"base": "quickstart+policy-only", "evaluation": {"every": 12}},
}
"""What each recorded run has instead."""
DIGITS = 2
"""Behind the point, of log-probabilities: four fifths of a table's bytes otherwise, and nothing but shades of grey."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, default=NAME, help=f"which one (default: {NAME})")
    parser.add_argument("--out", type=Path, help="folder to replace (default: the one that ships)")
    arguments = parser.parse_args()
    out: Path = arguments.out or recorded_run().parent / arguments.arm
    torch.set_num_threads(1)
    quiet_transformers()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / arguments.arm
        with start_run(load_config(merge_settings(SETTINGS, ARMS[arguments.arm])), run) as trainer:
            for report in trainer.train():
                print(f"round {report.round}: {sum(report.seconds_by_phase.values()):.1f} s")
        packed = Path(scratch) / "packed"
        shutil.copytree(run, packed, ignore=shutil.ignore_patterns("lock", "checkpoints", ".tmp", "journal"))
        for path in sorted(packed.rglob("*.parquet")):
            repack(path)
        check_equal(run, packed)
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(packed, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1000:.0f} kB")


def repack(path: Path) -> None:
    """Write a table again, smaller."""
    table = rounded(pq.ParquetFile(path).read())
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    if "logprobs" in table.column_names:
        texts.append("logprobs.list.element")
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=texts,
        write_statistics=False,
        store_schema=False,
    )


def rounded(table: pa.Table) -> pa.Table:
    """The table with log-probabilities of `DIGITS` digits."""
    if "logprobs" not in table.column_names:
        return table
    place, field = table.schema.get_field_index("logprobs"), table.schema.field("logprobs")
    lists = table["logprobs"].combine_chunks()
    values = pc.add(pc.round(lists.values, DIGITS), 0.0)  # -0.0 becomes 0.0
    return table.set_column(place, field, pa.ListArray.from_arrays(lists.offsets, values).cast(field.type))


def check_equal(run: Path, packed: Path) -> None:
    """Refuse a packed run whose tables differ from the original's."""
    one, other = RunReader(run), RunReader(packed)
    for name in TABLES:
        if not rounded(one.table(name)).equals(other.table(name)):
            raise SystemExit(f"packing changed the table {name}")
        if not other.table(name).schema.equals(TABLE_SCHEMAS[name]):
            raise SystemExit(f"packing changed the columns of {name}")


if __name__ == "__main__":
    main()
