"""Confounders that nobody named: planted in ten kinds on several tasks, and the camera of the skin images."""
