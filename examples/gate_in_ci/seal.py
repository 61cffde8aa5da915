"""Copy a candidate's files to where only the gate may write, and register that copy in the protected model.

    python examples/gate_in_ci/seal.py models:/leafnet-candidates/3 leafnet --experiment leafnet-sealed

``copy_model_version`` copies an entry of the registry, not the files: whoever trained the candidate could still
exchange them after the verdict. Run this as the gate's user, then judge what it prints with --recompute. With
``--model MODULE:NAME`` it takes the weights alone, into the architecture that this function makes: what is then judged,
and served, contains nothing that the candidate brought but numbers.
"""

from __future__ import annotations

import argparse
import tempfile

import mlflow.pytorch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from lightning_ifa.offline.reanalysis import load_weights_only


def seal(uri: str, name: str, experiment: str, model: str | None = None) -> str:
    """Re-log the files, or the weights alone, behind a model URI; give the URI of the version with the copy."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    with tempfile.TemporaryDirectory() as folder:
        files = download_artifacts(uri, dst_path=folder)
        if model:  # what cannot be sealed is refused before anything is written
            module, files = load_weights_only(files, model), f"{folder}/own"
            mlflow.pytorch.save_model(module, files, pip_requirements=["torch"], serialization_format="pickle")
        run = client.create_run(experiment_id, run_name=f"sealed {uri}").info.run_id
        logged = client.create_logged_model(experiment_id, "model", run, {"ifa.sealed_from": uri})
        client.log_model_artifacts(logged.model_id, files)
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
    parser.add_argument("--model", metavar="MODULE:NAME", help="architecture to put the weights alone into")
    options = parser.parse_args()
    print(seal(options.uri, options.name, options.experiment, options.model))


if __name__ == "__main__":
    main()
