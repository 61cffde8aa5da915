"""Samples whose logits follow the label, and through a further variable half of the classes."""

from __future__ import annotations

import numpy as np


def sample(n=600, k=5, association=0.0, use=0.0, seed=0):
    """Logits that speak for the label, and through `use` for the half of the classes that goes with the variable."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    pattern = labels >= k // 2
    m = pattern == (rng.random(n) < (1 + association) / 2)
    logits = 3.0 * np.eye(k)[labels] + rng.normal(size=(n, k))
    logits[:, k // 2 :] += use * m[:, None]
    return logits, labels, m.astype(float)[:, None]
