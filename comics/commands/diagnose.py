"""``comics diagnose``: what each part of the objective does to a trained run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from comics.commands.bars import bars
from comics.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from comics.diagnosis import Diagnosis


def diagnose(
    run: Annotated[str, typer.Argument(help="A trained run of params.yaml.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the run; its first one by default.", min=0)] = None,
    batches: Annotated[int, typer.Option(help="Training batches whose gradients are taken.", min=1)] = 6,
    split: Annotated[str, typer.Option(help="Images whose features are compared.")] = "val",
) -> None:
    """Show the gradient that each term of RUN's loss gives its extractor, and how far its features part real from forged.

    Written as diagnosis.json beside the weights, too.
    """
    from comics.params import SPLITS, load

    if split not in SPLITS:
        raise UserError(f"--split: there is no split '{split}'.", did_you_mean(split, SPLITS))
    resolved = load().resolve(run, seed)
    from comics.diagnosis import diagnose as look
    from comics.files import write_json

    with bars() as progress:
        found = look(resolved, batches=batches, split=split, progress=progress)
    path = resolved.folder / "diagnosis.json"
    write_json(path, {"digest": resolved.digest, "batches": batches, "split": split, **found.as_json()}, indent=1)
    _show(found)
    print(path)


def _show(found: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    def spread(values: tuple[float, ...], signed: bool) -> str:
        if not values:
            return "-"
        form = "{:+.2f}" if signed else "{:.3f}"
        mean, low, high = (form.format(one) for one in (sum(values) / len(values), min(values), max(values)))
        return f"{mean} ({low} to {high})"

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    console = Console()
    table = Table(
        "term", "norm", "cosine with detection", "with class loss", title="Gradient to the extractor: mean (range)"
    )
    for one in found.pulls:
        table.add_row(one.term, spread(one.norm, False), spread(one.detection, True), spread(one.classes, True))
    console.print(table)
    table = Table("features", "real", "forged", "within", "between", "AUC", title="Real against forged: mean cosines")
    for part in found.separations:
        row = (part.features, str(part.real), str(part.fake), *map(number, (part.within, part.between, part.auc)))
        table.add_row(*row)
    console.print(table)
    console.print(
        f"A face and its surroundings are alike by {number(found.faces.real)} where it is real, {number(found.faces.fake)} where "
        f"forged; AUC {number(found.faces.auc)}.",
        highlight=False,
    )


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.command()(diagnose)
