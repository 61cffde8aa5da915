"""The table in MLflow: one run a row, with one nested run a CAM method."""

from __future__ import annotations

import pandas as pd
from mlflow import MlflowClient

from lightning_ifa.tracking.names import slug


def record(client: MlflowClient, run_id: str, numbers: pd.DataFrame, **tags: str) -> None:
    """Log a row's numbers to its run, and each method's to a run inside it; what is NaN is left out.

    Args:
        client: Of the store.
        run_id: The row's run, as its training made it.
        numbers: From ``measure``.
        tags: Of the row.
    """
    parent = client.get_run(run_id)
    for key, text in tags.items():
        client.set_tag(run_id, f"paper.{key}", text)
    for method, part in numbers.dropna(subset="value").groupby("method"):
        inside = run_id
        if method:
            nested = {"mlflow.parentRunId": run_id, "paper.method": str(method)}
            made = client.create_run(parent.info.experiment_id, tags=nested, run_name=slug(str(method)))
            inside = made.info.run_id
        for name, value in zip(part["name"], part["value"], strict=True):
            client.log_metric(inside, f"paper/{name}", float(value))
        if method:
            client.set_terminated(inside)
