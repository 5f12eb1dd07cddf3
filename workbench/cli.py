"""The `workbench` command.

Exit codes: 0 done; 2 bad input (an unknown preset, field, file or model, a value out of range); 130 stopped by Ctrl-C
or SIGTERM; 1 any other failure. An error that the program foresees is one line on standard error; any other one shows
its stack trace.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: `target` is "module:function" that takes its arguments and returns the exit code."""

    target: str
    about: str


COMMANDS = {
    "run": Command("workbench.commands.train:run", "start a run from a preset or a configuration file"),
    "resume": Command("workbench.commands.train:resume", "go on with a run that was stopped or killed"),
    "fork": Command("workbench.commands.train:fork", "start a run from a round of another, with other settings"),
    "back": Command("workbench.commands.train:back", "put a run back to an earlier round"),
    "eval": Command("workbench.commands.evaluate:evaluate", "a run's checkpoint, or any model, on held-out problems"),
    "show": Command("workbench.commands.look:show", "a run's report, or the figures of one round"),
    "list": Command("workbench.commands.look:list_runs", "the runs in a folder"),
    "compare": Command("workbench.commands.look:compare", "two runs at equal cost, with paired intervals"),
    "experiment": Command(
        "workbench.commands.experiment:experiment", "arms x seeds side by side, compared at equal cost, as a page"
    ),
    "report": Command(
        "workbench.commands.report:report", "write a run as one HTML file, or its tables as CSV or Parquet"
    ),
    "export": Command("workbench.commands.export:export", "write a checkpointed round as a model folder, or push it"),
    "check": Command(
        "workbench.commands.check:check", "try a problem file, and a verifier on an output, before training"
    ),
    "reflect": Command("workbench.commands.reflect:reflect", "answer one question, judge the answer, reflect"),
    "doctor": Command("workbench.commands.doctor:doctor", "what works on this machine: devices, versions, engines"),
    "lab": Command("workbench.commands.lab:lab", "open the notebooks in JupyterLab"),
    "app": Command("workbench.commands.app:app", "the page in a browser: ask a model, look through runs"),
    "bench": Command("workbench.commands.bench:bench", "what we do beside peers that do the same work, timed"),
    "models": Command("workbench.commands.models:models", "list models, or get one: models list | models get NAME"),
}

HELP = """usage: workbench COMMAND ...

Train one model as policy and as its own judge (SPARK), and look at every round of it.

commands:
{commands}

`workbench COMMAND --help` explains a command. A first run: workbench run quickstart --rounds 3

Exit codes: 0 done, 2 bad input, 130 stopped by Ctrl-C or SIGTERM, 1 any other failure."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _settle_output()
    settle_threads()
    # Here, not above: `workbench --help` should not wait for it.
    from spark_kernel.errors import InputError, SparkError

    try:
        return _dispatch(arguments)
    except InputError as error:
        return _complain(error, BAD_INPUT)
    except SparkError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`workbench show ... | head`): nobody is left to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        lines = [f"  {name:<{width}}{command.about}" for name, command in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)))
        return OK if arguments else BAD_INPUT
    if arguments[0] in ("-V", "--version"):
        from spark_kernel import __version__

        print(f"spark-workbench {__version__}")
        return OK
    name = arguments[0]
    if name not in COMMANDS:
        from spark_kernel.errors import InputError

        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
        raise InputError(f'There is no command "{name}"{hint}. Commands: {", ".join(COMMANDS)}.')
    module, _, function = COMMANDS[name].target.partition(":")
    return int(getattr(importlib.import_module(module), function)(arguments[1:]))


def _settle_output() -> None:
    """Lines appear when they are written, also in a file; other libraries' bars and chatter stay out of it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")


def settle_threads() -> None:
    """Threads that wait do not spin: beside other work a spinning thread takes the core from the one it waits for.

    Read by the OpenMP libraries when they are loaded (GNU's, which torch's builds for PyPI bring; Intel's and LLVM's),
    so it comes before torch is.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def _complain(error: Exception, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
