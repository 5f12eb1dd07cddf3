"""Make the recorded run that ships with the package (workbench/recorded/quickstart): train it, then pack it.

OMP_NUM_THREADS=1 python scripts/make_recorded_run.py

Takes about a minute on one core. The run is real: the quickstart preset on the built-in starter model, with fewer and
smaller rounds. Packing changes no value: tables are written again with stronger compression and without the copy of
Arrow's schema, and what is of no use to a reader is left out (weights, lock). On the same versions and machine a second
run gives the same records; only times differ.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from spark_kernel.config import load_config
from spark_kernel.runs.reader import TABLES, RunReader
from spark_kernel.runs.schemas import TABLE_SCHEMAS
from spark_kernel.training.lifecycle import start_run
from workbench.commands import quiet_transformers
from workbench.recorded import NAME, recorded_run

SETTINGS = {
    "base": "quickstart",
    "rounds": 12,
    "threads": 1,
    "problems": {"per_round": 16},
    "rollout": {"samples": 4},
    "recycle": {"judge_quota": 14, "reflection_quota": 6, "mixed_pairwise_share": 0.4},
    "learner": {"minibatch_sequences": 64, "learning_rate": 2e-4},
    "evaluation": {"every": 6, "problems": 20, "samples": 2},
    "checkpoint": {"every": 12, "keep": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=recorded_run(), help="folder to replace")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    quiet_transformers()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / NAME
        with start_run(load_config(SETTINGS), run) as trainer:
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
    table = pq.ParquetFile(path).read()
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    floats = ["logprobs.list.element"] if "logprobs" in table.column_names else []
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=texts,
        use_byte_stream_split=floats,
        write_statistics=False,
        store_schema=False,
    )


def check_equal(run: Path, packed: Path) -> None:
    """Refuse a packed run whose tables differ from the original's."""
    one, other = RunReader(run), RunReader(packed)
    for name in TABLES:
        if not one.table(name).equals(other.table(name)):
            raise SystemExit(f"packing changed the table {name}")
        if not other.table(name).schema.equals(TABLE_SCHEMAS[name]):
            raise SystemExit(f"packing changed the columns of {name}")


if __name__ == "__main__":
    main()
