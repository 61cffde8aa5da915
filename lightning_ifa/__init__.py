"""Integrated feature analysis for PyTorch Lightning, tracked in MLflow.

Names are loaded on first use, so that ``import lightning_ifa`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ifa import gate
    from lightning_ifa.analysis import analyze
    from lightning_ifa.callback import IntegratedFeatureAnalysis
    from lightning_ifa.decomposition import MapEvaluation, check_maps, decompose, evaluate_maps
    from lightning_ifa.errors import IFAError, IFAWarning
    from lightning_ifa.feature_report import FeatureReport
    from lightning_ifa.features.table import FeatureTable
    from lightning_ifa.layer_analysis import analyze_layers
    from lightning_ifa.logged_model import log_model
    from lightning_ifa.tracking.compare import compare
    from lightning_ifa.tracking.outage import outage_proof
    from lightning_ifa.zero_code import autolog

__version__ = "0.1.0"

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
]

_HOME = {
    "FeatureReport": "feature_report",
    "FeatureTable": "features.table",
    "IFAError": "errors",
    "IFAWarning": "errors",
    "IntegratedFeatureAnalysis": "callback",
    "MapEvaluation": "decomposition",
    "analyze": "analysis",
    "analyze_layers": "layer_analysis",
    "autolog": "zero_code",
    "check_maps": "decomposition",
    "compare": "tracking.compare",
    "decompose": "decomposition",
    "evaluate_maps": "decomposition",
    "log_model": "logged_model",
    "outage_proof": "tracking.outage",
}


def __getattr__(name: str) -> Any:
    if name == "gate":  # a package of its own: gate.gate(...), gate.decide(...)
        return import_module(f"{__name__}.gate")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
