"""The gate: a registered model version is promoted only when its features are sound.

``lightning_ifa.gate`` is this package, and ``lightning_ifa.gate.gate(...)`` the function that does it all::

    from lightning_ifa import gate

    verdict = gate.gate("models:/leafnet/3", "configs/gate.yaml", promote="champion")
    verdict.passed

Knows the MLflow client, never torch or Lightning.
"""

from lightning_ifa.gate.decide import decide
from lightning_ifa.gate.model_metrics import ModelMetrics, find_model_metrics
from lightning_ifa.gate.policy import Policy, load_policy
from lightning_ifa.gate.registry import standing_verdict
from lightning_ifa.gate.run import gate
from lightning_ifa.gate.verdict import Check, Verdict

__all__ = [
    "Check",
    "ModelMetrics",
    "Policy",
    "Verdict",
    "decide",
    "find_model_metrics",
    "gate",
    "load_policy",
    "standing_verdict",
]
