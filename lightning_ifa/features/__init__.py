"""From a model and a loader to the FeatureTable. Knows torch and NumPy."""
