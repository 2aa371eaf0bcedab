"""Our datasets in detectron2's catalogues."""

from __future__ import annotations

from pathlib import Path

from comics.classes import CLASSES
from comics.errors import UserError
from comics.integrations.detectron2.package import part
from comics.params import SPLITS, Params


def register_datasets(params: Params, root: Path = Path()) -> list[str]:
    """Every split of the dataset of `params` that is there, as ``comics_<dataset>_<split>``.

    The files are canonical COCO: detectron2's own reader and its COCO evaluator take them as they are. Masks may be run
    lengths, so its configuration has to say ``INPUT.MASK_FORMAT = "bitmask"``. Names that are registered are left alone.

    Args:
        params: of params.yaml.
        root: the project's folder.

    Returns:
        The names.

    Raises:
        UserError: detectron2 is not installed, or no split is there.
    """
    catalogue = part("data").DatasetCatalog
    register = part("data.datasets").register_coco_instances
    names = []
    for split in SPLITS:
        annotations = root / "data" / params.dataset / split / "annotations.json"
        if not annotations.exists():
            continue
        name = f"comics_{params.dataset}_{split}"
        if name not in catalogue.list():
            register(name, {"thing_classes": list(CLASSES)}, str(annotations), str(annotations.parent))
        names.append(name)
    if not names:
        raise UserError(f"data/{params.dataset}: no split is there.", "Make the dataset: comics data --help")
    return names
