"""What is computed on request: how many features are enough, and which maps can be trusted.

Stands above ``features`` and ``indicators`` beside ``analysis``, and stays out of it: it runs the model again and
holds activations, while the analysis at every epoch must cost no more than its forward pass.
"""

from lightning_ifa.decomposition.decompose import Decomposition, decompose
from lightning_ifa.decomposition.evaluation import MapEvaluation, evaluate_maps
from lightning_ifa.decomposition.map_check import MapCheck, check_maps
from lightning_ifa.decomposition.principal import PrincipalFeatures

__all__ = [
    "Decomposition",
    "MapCheck",
    "MapEvaluation",
    "PrincipalFeatures",
    "check_maps",
    "decompose",
    "evaluate_maps",
]
