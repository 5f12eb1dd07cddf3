"""Measure a model folder on held-out puzzles and chains: the figures of docs/starter-model.md, as a table or as JSON.

OMP_NUM_THREADS=1 python scripts/measure_starter.py spark_kernel/models/starter
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from starter.measuring import SUBJECTS, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--problems", type=int, default=1000, help="held-out problems")
    parser.add_argument("--samples", type=int, default=4, help="answers per problem")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        subject: measure(
            arguments.folder, subject, problems=arguments.problems, samples=arguments.samples, seed=arguments.seed
        )
        for subject in arguments.subjects
    }
    if arguments.json:
        rows = {subject: [dataclasses.asdict(figure) for figure in figures] for subject, figures in found.items()}
        print(json.dumps(rows, indent=1))
        return
    for subject, figures in found.items():
        print(f"\n| {subject}: figure | value | 95 % interval | outputs | problems |\n| --- | --- | --- | --- | --- |")
        for f in figures:
            print(f"| {f.name} | {f.value:.3f} | {f.low:.3f} to {f.high:.3f} | {f.outputs} | {f.problems} |")


if __name__ == "__main__":
    main()
