"""What the features say: pure functions of arrays. Knows NumPy, SciPy and scikit-learn, not torch."""
