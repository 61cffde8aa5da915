"""The kept checkpoints as MLflow models: found by their numbers, loaded with their signature, ready for the gate."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from lightning_modules import Classifier, fit
from mlflow import MlflowClient
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger

from lightning_ifa import gate
from lightning_ifa.errors import IFAWarning
from lightning_ifa.tracking.description import DESCRIPTION
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

POLICY = Path(__file__).resolve().parents[2] / "configs" / "gate.yaml"


def train(store, folder, log_models, **settings):
    logger = MLFlowLogger("models", tracking_uri=store)
    analysis = IntegratedFeatureAnalysis(on_error="raise", probes=1, log_models=log_models, log_images=True)
    _, module = fit([analysis, *settings.pop("more", [])], logger=logger, default_root_dir=folder, **settings)
    return logger.run_id, module


def test_kept_checkpoints_are_models_of_their_run(store, tmp_path, no_pictures):
    kept = ModelCheckpoint(tmp_path / "kept", save_top_k=2, monitor="val_accuracy", mode="max")
    run_id, _ = train(store, tmp_path, "all", more=[kept], enable_checkpointing=True, max_epochs=2)
    mlflow.set_tracking_uri(store)
    client = MlflowClient(store)
    run = client.get_run(run_id)
    inputs = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    assert {name: each.tags[0].value for name, each in inputs.items()} == {
        "training": "training",
        "validation": "validation",
    }
    validation = inputs["validation"].dataset
    assert '"classes": {"0": ' in validation.profile
    found = mlflow.search_logged_models(
        [run.info.experiment_id],
        "metrics.`ifa/health/overfitting` >= 0",
        [{"dataset_name": validation.name, "dataset_digest": validation.digest}],
        order_by=[{"field_name": "metrics.ifa/health/overfitting", "ascending": False}],
        output_format="list",
    )
    outputs = {output.model_id: output.step for output in run.outputs.model_outputs}
    assert {model.model_id for model in found} == set(outputs)
    assert len(found) == 2
    (best,) = [model for model in found if model.tags.get("ifa.best")]
    assert best.params == {"layer": "net.features", "method": "hirescam", "classes": "3", "channels": "8"}
    assert best.tags[DESCRIPTION].startswith("# No alarm")
    assert {metric.step for metric in best.metrics} == {outputs[best.model_id]} == {int(best.tags["ifa.step"])}

    module = Classifier()
    module.load_state_dict(torch.load(kept.best_model_path, weights_only=True)["state_dict"])
    model = mlflow.pyfunc.load_model(best.model_uri)
    (shape,) = [spec.shape for spec in model.metadata.signature.inputs]
    x = np.random.default_rng(0).normal(size=(5, *shape[1:])).astype(np.float32)
    expected = module.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5)
    assert model.input_example is not None

    version = mlflow.register_model(best.model_uri, "leafnet")
    verdict = gate.gate(f"models:/leafnet/{version.version}", POLICY, tracking_uri=store)
    problems = [check for check in verdict.failures if "overfitting" not in check.name]  # which augmentation hides
    assert not problems


def test_without_a_checkpoint_there_is_nothing_to_log(store, tmp_path, no_pictures):
    with pytest.warns(IFAWarning, match="no checkpoint was kept; add a ModelCheckpoint"):
        train(store, tmp_path, "best", max_epochs=1)


def test_a_misspelt_choice_is_refused():
    with pytest.raises(ValueError, match="log_models='bst' is unknown; did you mean 'best'"):
        IntegratedFeatureAnalysis(log_models="bst")
