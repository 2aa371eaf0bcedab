"""The command line ``comics``: one command a pipeline step; rules, DVC stages and tests call the same ones."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from comics.errors import UserError
from comics.files import FULL

ENVIRONMENT = "COMICS_PARAMS"
"""As in `comics.params.read`, which takes a fifth of a second to import."""

ParamsOption = Annotated[
    Path | None, typer.Option("--params", help="The file to work from, instead of params.yaml.", show_default=False)
]

_GROUPS = (
    "data",
    "train",
    "detect",
    "calibrate",
    "evaluate",
    "diagnose",
    "robustness",
    "report",
    "weights",
    "workflow",
)


def app() -> typer.Typer:
    """The whole command line, assembled from ``comics/commands``."""
    root = typer.Typer(
        name="comics",
        help="Find every face, tell real from fake, outline it: data, training, evaluation and reports.",
        no_args_is_help=True,
        rich_markup_mode=None,  # rich's boxes around help and mistakes take longer than all the rest of a mistake
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    root.callback()(options)
    for group in _GROUPS:
        importlib.import_module(f"comics.commands.{group}").register(root)
    for typed in (root, *(group.typer_instance for group in root.registered_groups)):
        for command in typed.registered_commands if typed else ():
            command.callback = with_params(command.callback)
    return root


def show_version(wanted: bool) -> None:
    """Print the version, of a checkout with its commit, and end."""
    if not wanted:
        return
    import comics

    text = f"comics {comics.__version__}"
    from comics.workflow.project import commit_of

    commit = commit_of(Path(comics.__file__).parent)
    print(text + (f" (commit {commit[:12]})" if commit else ""))
    raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of `comics` itself."""


def with_params(command: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """`command` with the option ``--params FILE``, which names the file that `comics.params.load` reads."""
    if command is None:
        return None
    signature = inspect.signature(command, eval_str=True)
    if "params_file" in signature.parameters:  # of a group that an earlier call has seen
        return command

    @functools.wraps(command)
    def called(*args: Any, params_file: Path | None = None, **options: Any) -> Any:
        if params_file is None:
            return command(*args, **options)
        before = os.environ.get(ENVIRONMENT)
        os.environ[ENVIRONMENT] = str(params_file)
        try:
            return command(*args, **options)
        finally:
            if before is None:
                del os.environ[ENVIRONMENT]
            else:
                os.environ[ENVIRONMENT] = before

    option = inspect.Parameter("params_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ParamsOption)
    called.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    called.__annotations__ = {name: one.annotation for name, one in called.__signature__.parameters.items()}  # type: ignore[attr-defined]
    del called.__wrapped__  # type: ignore[attr-defined]  # typer would look at what is inside
    return called


def main() -> None:
    """Entry point: a `UserError`, and what a disk or a permission refuses, is printed without a traceback and ends
    with code 2, an interruption with 130."""
    guarded(lambda: app()())


def train_rank() -> None:
    """Entry point of each process of a training that several share (`comics.training.launch`)."""
    from comics.training.launch import child

    guarded(child)


def guarded(work: Callable[[], object]) -> None:
    """Do `work`; what it raises for the user to read ends the process with its code."""
    try:
        work()
    except UserError as error:
        bold_red = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print(f"\033[1;31m{error.message}\033[0m" if bold_red else error.message, file=sys.stderr)
        if error.remedy:
            print(error.remedy, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to go on.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL and error.filename is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"{where}{error.strerror or error}.", file=sys.stderr)
        if error.errno in FULL:
            print(
                "What was there before is kept. Make room, then run the same command again.",
                file=sys.stderr,
            )
        sys.exit(2)
