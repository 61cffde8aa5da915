"""Architectures that nobody here wrote, and which layer and grid an analysis should find in each."""
