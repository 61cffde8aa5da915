"""Runs compared on the same samples; knows neither Lightning nor MLflow."""

from lightning_ifa.comparison.compare import Comparison, compare_tables

__all__ = ["Comparison", "compare_tables"]
