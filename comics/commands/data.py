"""``comics data``: make, fetch, convert, verify and perturb datasets."""

from __future__ import annotations

import typer


def register(root: typer.Typer) -> None:
    """Add the ``data`` group to the command line."""
    data = typer.Typer(help="Make, fetch, convert, verify and perturb datasets.", no_args_is_help=True)
    root.add_typer(data, name="data")
