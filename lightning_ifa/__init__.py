"""Integrated feature analysis for PyTorch Lightning, tracked in MLflow.

Names are loaded on first use, so that ``import lightning_ifa`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_ifa.version import __version__ as __version__

if TYPE_CHECKING:
    from lightning_ifa import gate
    from lightning_ifa.analysis import analyze, analyze_layers
    from lightning_ifa.data.feature_table import FeatureTable
    from lightning_ifa.decomposition import decompose
    from lightning_ifa.errors import IFAError, IFAWarning
    from lightning_ifa.evaluation.cam_check import check_maps
    from lightning_ifa.evaluation.cam_evaluation import MapEvaluation, evaluate_maps
    from lightning_ifa.repairs.repair import repair
    from lightning_ifa.report.feature_report import FeatureReport
    from lightning_ifa.tracking.compare import compare
    from lightning_ifa.tracking.log_model import log_model
    from lightning_ifa.tracking.spooling_client import outage_proof
    from lightning_ifa.training.autolog import autolog
    from lightning_ifa.training.callback import IntegratedFeatureAnalysis

__all__ = [
    "FeatureReport",
    "FeatureTable",
    "IFAError",
    "IFAWarning",
    "IntegratedFeatureAnalysis",
    "MapEvaluation",
    "analyze",
    "analyze_layers",
    "autolog",
    "check_maps",
    "compare",
    "decompose",
    "evaluate_maps",
    "gate",
    "log_model",
    "outage_proof",
    "repair",
]

_HOME = {
    "FeatureReport": "report.feature_report",
    "FeatureTable": "data.feature_table",
    "IFAError": "errors",
    "IFAWarning": "errors",
    "IntegratedFeatureAnalysis": "training.callback",
    "MapEvaluation": "evaluation.cam_evaluation",
    "analyze": "analysis",
    "analyze_layers": "analysis",
    "autolog": "training.autolog",
    "check_maps": "evaluation.cam_check",
    "compare": "tracking.compare",
    "decompose": "decomposition.decompose",
    "evaluate_maps": "evaluation.cam_evaluation",
    "log_model": "tracking.log_model",
    "outage_proof": "tracking.spooling_client",
    "repair": "repairs.repair",
}


def __getattr__(name: str) -> Any:
    if name == "gate":  # a package of its own: gate.gate(...), gate.decide(...)
        return import_module(f"{__name__}.gate")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
