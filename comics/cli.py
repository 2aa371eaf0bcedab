"""The command line ``comics``: one command a pipeline step; rules, DVC stages and tests call the same ones."""

from __future__ import annotations

import importlib
import os
import sys

import typer

from comics.errors import UserError

_GROUPS = ("data", "train", "detect", "calibrate", "evaluate", "report", "weights", "workflow")


def app() -> typer.Typer:
    """The whole command line, assembled from ``comics/commands``."""
    root = typer.Typer(
        name="comics",
        help="Find every face, tell real from fake, outline it: data, training, evaluation and reports.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for group in _GROUPS:
        importlib.import_module(f"comics.commands.{group}").register(root)
    return root


def main() -> None:
    """Entry point: a `UserError` is printed without a traceback and ends with code 2, an interruption with 130."""
    from rich.console import Console

    try:
        app()()
    except UserError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(error.message, style="bold red", markup=False)
        if error.remedy:
            console.print(error.remedy, markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to go on.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
