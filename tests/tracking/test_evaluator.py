"""``mlflow.models.evaluate(..., evaluators="ifa")``."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models.evaluation.evaluator_registry import _model_evaluation_registry
from models import PoolNet, Squares, loader, trained

from lightning_ifa.analysis import analyze
from lightning_ifa.errors import BatchError, OutputError
from lightning_ifa.tracking.evaluator import IFAEvaluator
from lightning_ifa.tracking.store import default_store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # MLflow 3.17 with pandas 3.1

ROOT = Path(__file__).parents[2]
SCORE = "ifa/confounding/score"


def to_images(rows):
    return torch.tensor(rows.to_numpy(), dtype=torch.float32).reshape(-1, 1, 12, 12)


@pytest.fixture(scope="module")
def table():
    data = Squares(60)
    return pd.DataFrame(data.images.reshape(60, -1).numpy()).add_prefix("p").assign(label=data.labels.numpy())


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A store as default, the evaluator as the entry point would register it, a model."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch, default_store(f"sqlite:///{folder / 'mlflow.db'}"):
        patch.setitem(_model_evaluation_registry._registry, "ifa", IFAEvaluator)
        experiment = MlflowClient().create_experiment("x", artifact_location=(folder / "artifacts").as_uri())
        patch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        net = trained(PoolNet())
        with mlflow.start_run():
            info = mlflow.pytorch.log_model(net, name="m", pip_requirements=["torch"], serialization_format="pickle")
        yield net, info


def evaluate(model, table, **options):
    options = {"evaluators": "ifa", "evaluator_config": {"inputs": to_images}, "model_type": "classifier"} | options
    return mlflow.models.evaluate(model, table, targets="label", **options)


def test_metrics_reach_run_and_model_and_the_page_the_run(evaluated, table):
    net, info = evaluated
    with mlflow.start_run() as run:
        result = evaluate(info.model_uri, table)
    expected = analyze(net, loader(60)).metrics
    assert result.metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)
    client = MlflowClient()
    assert client.get_run(run.info.run_id).data.metrics[SCORE] == pytest.approx(expected[SCORE], rel=1e-4, abs=1e-6)
    attached = {m.key: m for m in client.get_logged_model(info.model_id).metrics}
    assert attached[SCORE].dataset_digest
    assert {"ifa_report.html", "ifa_overview.png"} <= {a.path for a in client.list_artifacts(run.info.run_id)}
    assert result.artifacts["ifa_overview"].content.size[0] > 1000


def test_a_model_without_id_has_its_metrics_on_the_run(evaluated, table):
    model = mlflow.pyfunc.load_model(evaluated[1].model_uri)
    with mlflow.start_run() as run:
        found = IFAEvaluator().evaluate(
            model_type="classifier",
            dataset=mlflow.data.from_pandas(table, targets="label").to_evaluation_dataset(),
            run_id=run.info.run_id,
            evaluator_config={"inputs": to_images, "train_loader": loader(48, 1)},
            model=model,
        )
    logged = MlflowClient().get_run(run.info.run_id).data.metrics
    assert logged == pytest.approx(found.metrics)
    assert "ifa/overfitting/score" in logged


@pytest.mark.parametrize(
    ("model_type", "config", "can"),
    [
        ("classifier", {"inputs": to_images}, True),
        ("regressor", {"inputs": to_images}, True),
        ("classifier", {}, False),
        ("classifier", None, False),
        ("classifier", {"inputs": "pixels"}, False),
        ("question-answering", {"inputs": to_images}, False),
        (None, {"inputs": to_images}, False),
    ],
)
def test_it_evaluates_only_when_asked_for(model_type, config, can):
    assert IFAEvaluator.can_evaluate(model_type=model_type, evaluator_config=config, anything="else") is can


def test_other_peoples_evaluations_do_not_notice_it(evaluated, table):
    with mlflow.start_run():
        result = mlflow.models.evaluate(
            data=table.assign(guess=table["label"]), targets="label", predictions="guess", model_type="classifier"
        )
    assert "accuracy_score" in result.metrics
    assert not any(key.startswith("ifa/") for key in result.metrics)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_sample": 64}, "evaluator_config: there is no option 'max_sample'; did you mean 'max_samples'"),
        ({"cam": "gradcamm"}, "did you mean 'gradcam'"),
        ({"batch_size": 0}, "batch_size=0; expected at least 1"),
        ({"batch_size": "64"}, "batch_size='64'; expected a whole number"),
    ],
)
def test_wrong_options_are_refused_before_a_row_is_read(options, match):
    with pytest.raises(ValueError, match=match):
        IFAEvaluator().evaluate(
            model_type="classifier", dataset=None, run_id="", evaluator_config={"inputs": to_images, **options}
        )


def test_models_and_inputs_that_do_not_fit_are_refused(evaluated, table):
    with mlflow.start_run():
        with pytest.raises(BatchError, match="inputs returned list"):
            evaluate(evaluated[1].model_uri, table, evaluator_config={"inputs": lambda rows: [1]})
        with pytest.raises(OutputError, match="flavor pytorch"):
            evaluate(lambda rows: rows["p0"], table)


def test_the_entry_point_is_found_by_mlflow_and_light(tmp_path):
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "lightning_ifa_declared-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-ifa-declared\nVersion: 0\n")
    groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))
    code = (
        "import sys\n"
        "from mlflow.models.evaluation.evaluator_registry import _model_evaluation_registry as registry\n"
        "before = {'torch', 'sklearn', 'pytorch_lightning', 'seaborn'} & set(sys.modules)\n"
        "registry.register_entrypoints()\n"
        "print(type(registry.get_evaluator('ifa')).__name__)\n"
        "print(sorted({'torch', 'sklearn', 'pytorch_lightning', 'seaborn'} & set(sys.modules) - before))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["IFAEvaluator", "[]"], done.stderr
