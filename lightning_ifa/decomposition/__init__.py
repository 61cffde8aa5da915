"""How many features are enough: selection curves, principal features, channels that can be left out.

Stands beside ``analysis`` and stays out of it: it runs the model again and holds activations, while the analysis at
every epoch must cost no more than its forward pass.
"""

from lightning_ifa.decomposition.decompose import Decomposition, decompose
from lightning_ifa.decomposition.principal import PrincipalFeatures

__all__ = ["Decomposition", "PrincipalFeatures", "decompose"]
