"""detectron2 and AdelaiDet: our datasets and our objective there, their models here (docs/interplay.md).

Neither is on a registry or needed by anything else; nothing is imported from them before it is used.
"""

from comics.integrations.detectron2.data import register_datasets
from comics.integrations.detectron2.detector import Detectron2Detector
from comics.integrations.detectron2.objective import add_bi_grained, after_step_hook

__all__ = ["Detectron2Detector", "add_bi_grained", "after_step_hook", "register_datasets"]
