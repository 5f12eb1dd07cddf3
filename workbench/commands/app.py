"""`workbench app`: the page in a browser, to ask a model and to look through runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spark_kernel.config import validate_config
from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import InputError
from workbench.cli import OK
from workbench.commands import quiet_transformers
from workbench.settings.flags import read_mapping


@dataclass(frozen=True)
class AppArguments:
    """Ask a model and watch it judge and correct itself, and look through runs, in a browser.

    Reads runs and models, never trains. By default only this machine can reach it. For others: a password in the
    environment variable WORKBENCH_PASSWORD (the user is "workbench"), or --public for everybody, with tighter limits.
    """

    model: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="PATH_OR_ID ...", help="Models to offer besides the built-in one; the first is preferred."
        ),
    ] = ()
    chat_template_kwargs: Annotated[
        str,
        tyro.conf.arg(
            metavar="YAML",
            help="What the chat templates of --model are given besides, e.g. '{enable_thinking: false}'; runs have "
            "their own.",
        ),
    ] = ""
    thinking_tags: Annotated[
        str, tyro.conf.arg(metavar="YAML", help="Own thinking tags of --model, e.g. '{<scratch>: </scratch>}'.")
    ] = ""
    runs: Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder that holds the runs.")] = Path("runs")
    port: Annotated[int, tyro.conf.arg(metavar="INT", help="Port to listen on; 0 takes a free one.")] = 7860
    address: Annotated[str, tyro.conf.arg(metavar="IP", help="Address to listen on.")] = "127.0.0.1"
    public: Annotated[bool, tyro.conf.arg(help="Let everybody look: no password, tighter limits.")] = False
    hosts: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help="Host names by which others reach the app.")
    ] = ()
    proxies: Annotated[
        int, tyro.conf.arg(metavar="N", help="Reverse proxies of yours in front, which say who the client is.")
    ] = 0
    forwarded_host: Annotated[
        bool,
        tyro.conf.arg(help="Your proxy says in X-Forwarded-Host which name was asked for."),
    ] = False


def app(arguments: Sequence[str]) -> int:
    """Serve the app until Ctrl-C."""
    args = tyro.cli(AppArguments, prog="workbench app", args=arguments, use_underscores=True)
    if importlib.util.find_spec("gradio") is None:
        raise InputError('The app needs Gradio: pip install "spark-workbench[app]".')
    from workbench.app.access import decide_access
    from workbench.app.serve import PASSWORD_VARIABLE, AppSettings, serving

    if not 0 <= args.port <= 65535:
        raise InputError(f"--port {args.port} is refused: 0 to 65535.")
    access = decide_access(
        args.address, hosts=args.hosts, password=os.environ.get(PASSWORD_VARIABLE) or None, public=args.public,
        proxies=args.proxies, forwarded_host=args.forwarded_host,
    )  # fmt: skip
    quiet_transformers()
    settings = AppSettings(access, args.runs, args.model, args.port, model_settings=_model_settings(args))
    with serving(settings) as running:
        print(f"The app is at {running.url}  (Ctrl-C ends it)", flush=True)
        running.wait()
    return OK


def _model_settings(args: AppArguments) -> dict[str, ModelSection]:
    """The settings of the models that were named, where the flags say anything about them."""
    arguments = read_mapping("--chat_template_kwargs", args.chat_template_kwargs)
    tags = read_mapping("--thinking_tags", args.thinking_tags)
    if (arguments or tags) and not args.model:
        raise InputError("--chat_template_kwargs and --thinking_tags are about the models of --model: name one.")
    given = {"chat_template_kwargs": arguments, "thinking_tags": tags}
    return {name: validate_config({"model": given | {"path": name}}).model for name in args.model if arguments or tags}
