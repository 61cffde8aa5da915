"""Copy a candidate's files to where only the gate may write, and register that copy in the protected model.

    python examples/gate_in_ci/seal.py models:/leafnet-candidates/3 leafnet --experiment leafnet-sealed

``copy_model_version`` copies an entry of the registry, not the files: whoever trained the candidate could still
exchange them after the verdict. Run this as the gate's user, then judge what it prints with --recompute.
"""

from __future__ import annotations

import argparse
import tempfile

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts


def seal(uri: str, name: str, experiment: str) -> str:
    """Re-log the files behind a model URI, and give the URI of the version that points to the copy."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    run = client.create_run(experiment_id, run_name=f"sealed {uri}").info.run_id
    logged = client.create_logged_model(experiment_id, "model", run, {"ifa.sealed_from": uri})
    with tempfile.TemporaryDirectory() as folder:
        client.log_model_artifacts(logged.model_id, download_artifacts(uri, dst_path=folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.set_terminated(run)
    source = f"models:/{logged.model_id}"
    version = client.create_model_version(name, source, run, model_id=logged.model_id)
    return f"models:/{name}/{version.version}"


def main() -> None:
    """Seal one version."""
    parser = argparse.ArgumentParser(description="Copy a candidate's files to where only the gate may write.")
    parser.add_argument("uri", help="models:/NAME/VERSION of the candidate")
    parser.add_argument("name", help="protected registered model")
    parser.add_argument("--experiment", required=True, help="experiment that only the gate may edit")
    options = parser.parse_args()
    print(seal(options.uri, options.name, options.experiment))


if __name__ == "__main__":
    main()
