"""The model card of a run, in the form that Hugging Face reads: what it is, what it scores, what it is not for.

Written by the pipeline from the files that a run leaves (run.json, detections, calibration.json), never by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from comics.detect.model import notice_of
from comics.evaluation import bootstrap, match_tasks, read_detections, read_ground_truth
from comics.evaluation.calibration import Calibration, FoundFaces, Held, held, match_faces, read_calibration
from comics.evaluation.inputs import GroundTruth
from comics.evaluation.judging import judged
from comics.evaluation.resampling import Interval
from comics.evaluation.scores import tasks_of
from comics.files import read_json, write_json, write_text
from comics.params import Params, ResolvedRun
from comics.progress import Progress, silent
from comics.report.page import duration, energy
from comics.report.reliability import reliability_svg
from comics.report.results import detections_path, require
from comics.report.style import SPLIT_NAMES

SAMPLES = 200
"""Resamples of images for the intervals."""
SHOWN = ("AP", "AP_S", "AP_M", "AP_L", "oLRP")
VERDICTS = ("face_AUC", "face_EER", "image_AUC", "image_EER")
PERTURBED = {"test_dev": "as they are", "test_challenge": "perturbed"}
_Z = 1.959963984540054


def calibration_path(run: ResolvedRun) -> Path:
    """The calibration of a run, from the project's root."""
    return run.folder / "calibration.json"


def card_path(run: ResolvedRun) -> Path:
    """The model card of a run, from the project's root."""
    return run.folder / "README.md"


def write_card(
    params: Params, run: ResolvedRun, splits: Sequence[str], root: Path = Path(), progress: Progress = silent
) -> Path:
    """Write the model card of `run` and its reliability beside it, as a diagram and as numbers.

    Args:
        params: the project's.
        run: trained, predicted and calibrated.
        splits: test splits whose scores are told.
        root: the project's folder.
        progress: told of the resamples.

    Raises:
        UserError: a file is missing or of another version of the run.
    """
    wanted = [(calibration_path(run), run), *((detections_path(run, split), run) for split in splits)]
    require(wanted, root)
    calibration = read_calibration(root / calibration_path(run))
    facts = read_json(root / run.folder / "run.json")
    sections = []
    results: list[tuple[str, dict[tuple[str, str], float]]] = []
    unseen: dict[str, Held] = {}
    for split in splits:
        annotations = root / run.annotations(split)
        truth = read_ground_truth(annotations)
        found = read_detections(root / detections_path(run, split), truth)
        matched = match_tasks(truth, found, tasks_of(truth, found), detailed=True)
        _, intervals = bootstrap(truth, judged(truth, found, matched), SAMPLES, 0, progress)
        forgeries = _forgeries(annotations, truth)
        faces = match_faces(truth, found, calibration.overlap, calibration.floor)
        rows = verdict_rows(truth, faces, calibration, forgeries)
        sections.append(_scores(split, len(truth.image_ids), intervals, rows))
        if split != calibration.split:
            unseen[split] = held(calibration, faces)
        results.append((split, {(one.task, one.metric): one.value for one in intervals if one.cls == "all"}))
    tests = {split: asdict(one) for split, one in unseen.items()}
    write_json(root / run.folder / "reliability.json", {"digest": run.digest, "tests": tests}, indent=1)
    diagram = reliability_svg(calibration.as_json(), run.name, tests)
    write_text(root / run.folder / "reliability.svg", diagram + "\n")
    text = _text(params, run, facts, calibration, unseen, sections, results)
    write_text(root / card_path(run), text)
    return card_path(run)


def _forgeries(annotations: Path, truth: GroundTruth) -> list[str]:
    """The kind of forgery of each annotation, where the dataset tells it (``forgery``), else an empty word."""
    kinds = {one["id"]: str(one.get("forgery") or "") for one in read_json(annotations)["annotations"]}
    return [kinds.get(identity, "") for identity in truth.annotation_ids.tolist()]


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, JASA 1927)."""
    if not count:
        return 0.0, 1.0
    share, z2 = hits / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return float(middle - half), float(middle + half)


def verdict_rows(
    truth: GroundTruth, faces: FoundFaces, calibration: Calibration, forgeries: Sequence[str]
) -> list[tuple[str, int, int]]:
    """How many faces of each kind get the right verdict at the threshold ``eer``; a face that is not found does not.

    Returns:
        Name, number of faces, number of right verdicts.
    """
    chosen = (faces.annotations >= 0) & (faces.scores >= calibration.score)
    fake = calibration.apply(faces.p_fake[chosen]) >= calibration.thresholds["eer"]
    right = np.zeros(len(truth.annotation_ids), bool)
    right[faces.annotations[chosen]] = fake == (faces.truth[chosen] == 1)
    category = next(key for key, name in truth.categories.items() if name.casefold() == "fake")
    own, is_fake = ~truth.crowd, truth.annotation_categories == category
    groups = {"real faces": own & ~is_fake, "fake faces": own & is_fake}
    for name, low, high in _sizes():
        groups[f"{name} faces"] = own & (truth.areas >= low) & (truth.areas < high)
    kinds = np.array(forgeries, object)
    for kind in sorted({kind for kind in forgeries if kind}):
        groups[f"forged by {kind}"] = own & (kinds == kind)
    return [(name, int(group.sum()), int(right[group].sum())) for name, group in groups.items() if group.any()]


def _sizes() -> list[tuple[str, float, float]]:
    return [("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, np.inf)]


def _scores(split: str, images: int, intervals: Sequence[Interval], rows: Sequence[tuple[str, int, int]]) -> str:
    known = {(one.task, one.cls, one.metric): one for one in intervals}
    lines = [
        f"### {SPLIT_NAMES.get(split, split)}: {images} images"
        + (f", {PERTURBED[split]}" if split in PERTURBED else ""),
        "",
        "| | boxes | masks |",
        "| --- | --- | --- |",
    ]
    for metric in (*SHOWN, *VERDICTS):
        cells = [known.get((task, "all", metric)) for task in ("detection", "segmentation")]
        if any(cells):
            lines.append(f"| {metric} | " + " | ".join(map(_cell, cells)) + " |")
    lines += ["", "| verdicts at equal error | faces | right |", "| --- | --- | --- |"]
    lines += [f"| {name} | {count} | {_share(hits, count)} |" for name, count, hits in rows]
    return "\n".join(lines)


def _reliability_table(calibration: Calibration, unseen: Mapping[str, Held]) -> str:
    lines = [
        "| | faces | ECE before | ECE after | Brier before | Brier after |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    known = {f"{calibration.split} (fitted)": (calibration.before, calibration.after)}
    known |= {split: (one.before, one.after) for split, one in unseen.items()}
    for name, (before, after) in known.items():
        count = sum(after.faces)
        pairs = (before.ece, after.ece, before.brier, after.brier)
        lines.append(f"| {name} | {count} | " + " | ".join(f"{value:.3f}" if count else "–" for value in pairs) + " |")
    return "\n".join(lines)


def _threshold_table(calibration: Calibration, unseen: Mapping[str, Held]) -> str:
    """A row a threshold: what share of the real and of the fake faces found on each test split is called fake at it."""
    titles = [f"{kind}, {split}" for split in unseen for kind in ("real", "fake")]
    lines = [
        "| threshold | P(fake) | " + "".join(f"{title} | " for title in titles),
        "| --- | --- | " + "--- | " * len(titles),
    ]
    for name, value in calibration.thresholds.items():
        cells = [f"`{name}`", f"{value:.3f}"]
        for one in unseen.values():
            cells += [_share(*pair) for pair in zip(one.called_fake[name], (one.real, one.fake), strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(line.rstrip() for line in lines)


def _share(hits: int, count: int) -> str:
    if not count:
        return "–"
    low, high = wilson(hits, count)
    return f"{100 * hits / count:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _cell(one: Interval | None) -> str:
    return "–" if one is None else f"{100 * one.value:.1f} ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _front(run: ResolvedRun, results: Sequence[tuple[str, dict[tuple[str, str], float]]]) -> str:
    """The block of YAML that Hugging Face indexes."""
    content: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": "comics-forensics",
        "pipeline_tag": "image-segmentation",
        "tags": ["deepfake-detection", "instance-segmentation", "image-forensics", run.detector],
        "datasets": [run.dataset_name],
        "model-index": [
            {
                "name": run.name,
                "results": [
                    {
                        "task": {"type": "image-segmentation", "name": "multi-face forgery detection and segmentation"},
                        "dataset": {"name": run.dataset_name, "type": run.dataset_name, "split": split},
                        "metrics": [
                            {"type": metric, "name": f"{metric}, {task}", "value": round(100 * values[task, metric], 2)}
                            for task, metric in (("detection", "AP"), ("segmentation", "AP"), ("detection", "face_AUC"))
                            if (task, metric) in values
                        ],
                    }
                    for split, values in results
                ],
            }
        ],
    }
    stream = StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.dump(content, stream)
    return f"---\n{stream.getvalue()}---\n"


def _text(
    params: Params,
    run: ResolvedRun,
    facts: Mapping[str, Any],
    calibration: Calibration,
    unseen: Mapping[str, Held],
    sections: Sequence[str],
    results: Sequence[tuple[str, dict[tuple[str, str], float]]],
) -> str:
    title = run.params.title or run.name
    notice = notice_of(run.dataset.kind, run.dataset_name, True)
    parts = ", ".join(run.params.components) or "none"
    hardware = facts.get("hardware") or {}
    seconds, joules = facts.get("seconds"), facts.get("energy_joules")
    training = run.training
    told = [
        f"{training.epochs} epochs, batches of {training.batch_size}, {training.optimizer}, learning rate {training.lr:g}, "
        f"longest side {training.image_size} px, seed {run.seed}",
        f"on {hardware.get('device', 'hardware that was not recorded')}, {facts.get('precision', 'precision not recorded')}",
        f"{duration(seconds) if seconds is not None else 'time not recorded'}, "
        f"{energy(joules) if joules is not None else 'energy not measured'}",
        ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items())
        or "versions not recorded",
        f"run digest `{run.digest}`, weights `{run.checkpoint_digest}`",
    ]
    split = calibration.split
    faces = calibration.real + calibration.fake
    intended = (
        "A demonstration of the software, and a check that a pipeline works. Its faces are rendered; it has seen no "
        "photograph of a person."
        if run.dataset.kind in ("mini", "crowd")
        else "Research on detecting and outlining forged faces: comparison, ablation, further training."
    )
    return f"""{_front(run, results)}
# {title}

**{notice}**

Finds every face in an image, says whether it is real or forged, and outlines it.

- Detector: {run.detector} on {run.model.backbone}; parts of COMICS: {parts}
- Takes RGB images of any size, shrunk to {training.image_size} px; gives a box, a mask, a score and P(fake) for each face
- Software: comics-forensics. `comics detect photo.jpg --weights model.pt`; `comics.load("model.pt").detect("photo.jpg")`

## Intended use

{intended}

## Out of scope

Evidence about a person or a picture; moderation, identification or any decision without a human who knows these limits;
kinds of forgery other than those of the training data; pictures of people who do not know that they are looked at where
the law asks for their consent.

## Limits

It was trained on {run.dataset_name} alone: other ways of forging faces, other cameras, and further compression change its scores in
ways that were not measured here. Small faces are found and told apart worst (below). P(fake) is calibrated for the
share of fake faces among those of {split} ({calibration.fake} of {faces}); where fakes are rarer, it is too high.

## Data

{run.dataset_name} ({run.dataset.kind}), split `train`. Calibrated on `{split}`: {calibration.images} images, {calibration.real} real
and {calibration.fake} fake faces, which training does not read.

## Training

{chr(10).join(f"- {line}" for line in told)}

## Scores

Percent, with 95 % intervals: over {SAMPLES} resamples of images, those of shares by Wilson's formula. One training; other seeds
differ (see the report's tables). AP and oLRP as COCO and LRP define them, by class; verdicts are of faces.

{(chr(10) * 2).join(sections)}

## Calibration

P(fake) = sigmoid(logit(p) / {calibration.temperature:.4f} + {calibration.bias:.4f}), fitted on `{split}`; a detection counts as
a face from a score of {calibration.score:.3f} on. Expected calibration error (ECE) and Brier score, of the faces found:

{_reliability_table(calibration, unseen)}

![Reliability diagram](reliability.svg)

Thresholds come from the {calibration.real} real and {calibration.fake} fake faces of `{split}`; a rate that they promise,
such as the 1 % of `fpr1`, holds of those alone. On faces that they were not made from, called fake are:

{_threshold_table(calibration, unseen)}

## Licence

Apache-2.0, for the software and these weights; the data has a licence of its own.
"""
