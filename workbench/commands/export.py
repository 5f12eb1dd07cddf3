"""`workbench export`: a checkpointed round as a Hugging Face folder, or on the hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spark_kernel.errors import InputError
from workbench.cli import OK
from workbench.commands import quiet_transformers, require_run


@dataclass(frozen=True)
class ExportArguments:
    """Write a checkpointed round as a Hugging Face folder with a model card; push it to the hub if asked to.

    A run that trained all weights gives full weights; one that trained an adapter gives the adapter, or with --merge
    full weights with the adapter merged in. The run is only read.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="The run's folder.")]
    round: Annotated[
        int | None, tyro.conf.arg(metavar="K", help="Its checkpoint after round K; by default the newest sound one.")
    ] = None
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="New folder; by default exports/RUN-K, with -merged after it.")
    ] = None
    merge: Annotated[bool, tyro.conf.arg(help="Merge the adapter into full weights.")] = False
    push: Annotated[
        str | None, tyro.conf.arg(metavar="OWNER/NAME", help="Push the folder to this repository on the hub.")
    ] = None
    private: Annotated[bool, tyro.conf.arg(help="With --push: make a new repository private.")] = False


def export(arguments: Sequence[str]) -> int:
    """Export a round."""
    args = tyro.cli(ExportArguments, prog="workbench export", args=arguments)
    run = require_run(args.run)
    if args.private and args.push is None:
        raise InputError("--private goes with --push OWNER/NAME: a folder on this machine has no such setting.")
    # After the cheap checks: these bring torch and transformers.
    from spark_kernel.models.download import folder_size
    from spark_kernel.publish.base_model import describe_base
    from spark_kernel.publish.export import check_export, find_source, write_export
    from spark_kernel.publish.hub import check_repository, push_folder
    from spark_kernel.runs.reader import RunReader
    from workbench.reporting.model_card import model_card

    quiet_transformers()
    source = find_source(run, args.round)
    for sentence in source.damaged:
        print(f"{sentence} An older one is taken.", file=sys.stderr)
    reader = RunReader(run)
    out = args.out or Path("exports") / f"{reader.info.name}-{source.round}{'-merged' if args.merge else ''}"
    check_export(source, out, merge=args.merge)
    base = describe_base(source.config.model)
    if args.push is not None:
        if source.has_adapter and not args.merge and not base.on_hub:
            raise InputError(
                f"The adapter's base model {base.name} is a folder on this machine, so nobody could load the adapter "
                "from the hub: push full weights with --merge."
            )
        check_repository(args.push, private=args.private)
    card = model_card(reader, source, base, merged=args.merge, location=args.push or str(out))
    write_export(source, base, out, card, merge=args.merge)
    what = "adapter" if source.has_adapter and not args.merge else "full weights"
    print(f"{out}: {what} of round {source.round}, {folder_size(out) / 1e6:.1f} MB, with a model card (README.md).")
    if args.push is not None:
        url = push_folder(out, args.push, private=args.private, message=f"Round {source.round} of {reader.info.name}")
        print(f"Pushed to {url}")
    return OK
