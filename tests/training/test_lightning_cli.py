"""``lightning-ifa fit`` and ``validate``: what a configuration may name, and how its mistakes are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lightning_ifa.cli import main
from lightning_ifa.training.lightning_cli import explain_parser_error, train

pytestmark = [pytest.mark.usefixtures("no_pictures"), pytest.mark.filterwarnings("ignore:no MLflow run was found")]

CLASSES = """
import {package} as pl
from models import Steps, loader

class Data(pl.LightningDataModule):
    def __init__(self, samples: int = 24):
        super().__init__()
        self.samples = samples
    def train_dataloader(self):
        return loader(self.samples, seed=1, batch_size=8)
    def val_dataloader(self):
        return loader(self.samples, seed=2, batch_size=8)

class Net(Steps, pl.LightningModule):
    def __init__(self, rate: float = 0.01, broken: bool = False):
        super().__init__(rate)
        if broken:
            raise KeyError("no such backbone")
"""

CONFIG = {
    "seed_everything": 0,
    "trainer": {
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    },
    "model": {"class_path": "own_{name}.Net"},
    "data": {"class_path": "own_{name}.Data", "init_args": {"samples": 24}},
}

IFA = "lightning_ifa.IntegratedFeatureAnalysis"


@pytest.fixture(params=["pytorch_lightning", "lightning.pytorch"])
def config(request, tmp_path, monkeypatch):
    """A configuration in the working directory, whose classes lie beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["lightning-ifa"])
    name = request.param.replace(".", "_")
    (tmp_path / f"own_{name}.py").write_text(CLASSES.format(package=request.param))
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(CONFIG).replace("{name}", name))
    yield "--config=x.yaml"
    sys.modules.pop(f"own_{name}", None)


def analyses(cli):
    return [c for c in cli.trainer.callbacks if type(c).__name__ == "IntegratedFeatureAnalysis"]


def test_the_callback_is_there_by_default_in_either_package(config):
    (analysis,) = analyses(train("fit", [config]))
    assert set(analysis.report.tables) == {"train", "validation"}


def test_the_configurations_own_callback_is_the_only_one(config, monkeypatch):
    monkeypatch.setenv("LIGHTNING_IFA", "1")
    cli = train("fit", [config, f"--trainer.callbacks+={IFA}", "--trainer.callbacks.layer=net.features.0"])
    (report,) = [analysis.report for analysis in analyses(cli) if analysis.report is not None]
    assert report.tables["validation"].layer == "net.features.0"


def test_validate_analyses_a_checkpoint(config):
    train("fit", [config]).trainer.save_checkpoint("x.ckpt")
    (analysis,) = analyses(train("validate", [config, "--ckpt_path=x.ckpt"]))
    assert analysis.report is not None


ALONE = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == {hidden!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from lightning_ifa.tracking import publisher
from lightning_ifa.training.lightning_cli import train
publisher.write_pictures = lambda *_: None
(analysis,) = [c for c in train("fit", ["--config=x.yaml"]).trainer.callbacks if hasattr(c, "model_tags")]
assert {hidden!r} not in sys.modules
print(sorted(analysis.report.tables))
"""


def test_one_lightning_package_is_enough(config):
    hidden = "pytorch_lightning" if "lightning_pytorch" in Path("x.yaml").read_text() else "lightning"
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root / "tests" / "helpers"), str(root)])
    code = [sys.executable, "-c", ALONE.format(hidden=hidden)]
    done = subprocess.run(code, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("['train', 'validation']\n")


def run(*arguments):
    return CliRunner().invoke(main, ["fit", *arguments])


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--data.sampels=3", "has no option 'sampels'; did you mean 'samples'?"),
        ("--trainer.max_epchs=3", "there is no option 'trainer.max_epchs'; did you mean 'trainer.max_epochs'?"),
        ("--trainr.max_epochs=3", "there is no option 'trainr'; did you mean 'trainer'?"),
        ("--model={module}.Nett", "there is no {module}.Nett; did you mean 'Net'?"),
        ("--model=own_nothing.Net", "there is no module 'own_nothing'"),
        (f"--trainer.callbacks+={IFA}s", "did you mean 'IntegratedFeatureAnalysis'?"),
        ("--data.samples=many", "Expected a <class 'int'>. Got value: many"),
        ("--model.broken=true", "cannot be made: KeyError: 'no such backbone' (own_"),
        ("--trainer.strategy=nonsense", "cannot be made: "),
        ("--config=nowhere.yaml", "File does not exist"),
    ],
)
@pytest.mark.parametrize("config", ["pytorch_lightning"], indirect=True)
def test_mistakes_are_told_in_a_line_and_are_two(argument, told, config):
    module = Path(next(Path().glob("own_*.py"))).stem
    result = run(config, argument.format(module=module))
    assert result.exit_code == 2, result.output
    assert told.format(module=module) in result.output
    assert "Traceback" not in result.output
    assert result.output.count("Expected a <class 'NoneType'>") == 0


@pytest.mark.parametrize("config", ["pytorch_lightning"], indirect=True)
def test_a_damaged_file_is_two_and_names_the_line(config):
    Path("x.yaml").write_text("model: [\ntrainer: 3\n")
    result = run(config)
    assert result.exit_code == 2
    assert "line 3" in result.output


@pytest.mark.parametrize("config", ["pytorch_lightning"], indirect=True)
def test_errors_of_the_training_itself_stay_as_they_are(config):
    with pytest.raises(ValueError, match="Invalid learning rate"):
        train("fit", [config, "--model.rate=-1"])


@pytest.mark.parametrize("config", ["pytorch_lightning"], indirect=True)
def test_help_of_the_callback_comes_from_its_docstring(config):
    result = run("--trainer.callbacks.help", IFA)
    assert result.exit_code == 0
    assert "no input pixel leaves the process" in " ".join(result.output.split())


def test_without_jsonargparse_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr("lightning_ifa.training.lightning_cli.find_spec", lambda name: None)
    result = run("--config=x.yaml")
    assert result.exit_code == 2
    assert 'pip install "lightning-ifa[cli]"' in result.output


def test_other_messages_of_the_parser_are_passed_on():
    assert explain_parser_error("anything else", []) == "anything else"
