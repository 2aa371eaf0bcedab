"""``comics calibrate | card``: from a detector's scores to probabilities, and what a run is and is not for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comics.commands.bars import bars
from comics.errors import UserError, did_you_mean

RunArgument = Annotated[str, typer.Argument(help="A trained run of params.yaml.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the run; its first one by default.", min=0)]


def calibrate(
    run: RunArgument,
    seed: SeedOption = None,
    split: Annotated[str, typer.Option(help="That training does not read.")] = "val",
) -> None:
    """Fit P(fake) and its thresholds to RUN's detections on val; `comics detect` then uses them.

    Detections that are not there yet are made first.
    """
    from comics.detect.card import calibration_path
    from comics.evaluation.calibration import calibrate as fit
    from comics.files import write_json
    from comics.params import SPLITS, load
    from comics.provenance import write_sidecar
    from comics.report.results import detections_path, state

    if split not in SPLITS:
        raise UserError(f"--split: there is no split '{split}'.", did_you_mean(split, SPLITS))
    if split == "train":
        raise UserError("--split: training reads 'train': what is learnt there says nothing of other images.")
    resolved = load().resolve(run, seed)
    detections = detections_path(resolved, split)
    if state(detections, resolved.digest, Path()) != "current":
        from comics.detect.predictor import Predictor, predict_split

        with bars() as progress:
            predict_split(Predictor(resolved), split, detections, progress=progress)
    made = fit(resolved.annotations(split), detections, split, resolved.digest)
    path = calibration_path(resolved)
    write_json(path, made.as_json(), indent=1)
    write_sidecar(
        path,
        {
            "digest": resolved.digest,
            "run": resolved.name,
            "dataset": resolved.dataset_name,
            "split": split,
            "seed": resolved.seed,
        },
    )
    print(
        f"{path}: temperature {made.temperature:.3f}, bias {made.bias:+.3f}; calibration error {made.before.ece:.3f} before, "
        f"{made.after.ece:.3f} after, of {sum(made.after.faces)} faces."
    )


def card(
    run: RunArgument,
    seed: SeedOption = None,
    split: Annotated[list[str] | None, typer.Option(help="Whose scores are told; the test sets by default.")] = None,
) -> None:
    """Write RUN's model card and reliability diagram beside its weights."""
    from comics.detect.card import write_card
    from comics.params import SPLITS, TEST_SPLITS, load
    from comics.workflow.plan import splits_of

    params = load()
    for one in split or ():
        if one not in SPLITS:
            raise UserError(f"--split: there is no split '{one}'.", did_you_mean(one, SPLITS))
    resolved = params.resolve(run, seed)
    tests = [one for one in splits_of(params) if one in TEST_SPLITS]
    with bars() as progress:
        path = write_card(params, resolved, split or tests, progress=progress)
    print(path)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (calibrate, card):
        root.command()(command)
