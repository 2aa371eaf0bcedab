import typer


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
