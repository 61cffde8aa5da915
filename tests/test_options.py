"""Options are checked where they are given, by every entry alike, and a wrong one is named."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from models import PoolNet, loader

from lightning_ifa import autolog
from lightning_ifa.analysis import analyze, analyze_layers
from lightning_ifa.cam.methods import METHODS
from lightning_ifa.options import CAM_METHODS, AnalysisOptions, TrainingOptions
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

WRONG = [
    ("explain", "predictions", "did you mean 'prediction'"),
    ("explain", "3", "choose target, prediction or a class index"),
    ("explain", -1, "at least 0"),
    ("explain", 1.0, "whole number"),
    ("explain", True, "whole number"),
    ("cam", "gradcamm", "did you mean 'gradcam'"),
    ("cam", "saliency", "choose hirescam, gradcam"),
    ("cam", None, "choose hirescam"),
    ("cam", 3, "or a function"),
    ("task", "multi-class", "did you mean 'multiclass'"),
    ("task", "detection", "choose auto, multiclass"),
    ("task", "custom", "unknown"),
    ("max_samples", 0, "at least 4"),
    ("max_samples", 3, "at least 4"),
    ("max_samples", "many", "whole number"),
    ("max_samples", float("nan"), "whole number"),
    ("probes", 0, "at least 1"),
    ("probes", -2, "at least 1"),
    ("probes", True, "whole number"),
    ("probes", 2.0, "whole number"),
    ("seed", -1, "at least 0"),
    ("seed", None, "whole number"),
    ("seed", "0", "whole number"),
    ("class_names", "cat", "sequence of names"),
    ("class_names", 2, "sequence of names"),
    ("class_names", {"cat": 0}, "sequence of names"),
    ("batch_fn", "read", "expected a function"),
    ("metadata", {"val": pd.DataFrame()}, "names the split 'val'"),
    ("metadata", pd.DataFrame({"site": [1]}), "expected a mapping"),
]
"""Option, value, and what the message says beside the option's name."""

ONE_LAYER = [
    ("layer", PoolNet(), "expected a string"),
    ("layer", 4, "expected a string"),
    ("reshape", torch.flatten, "name it by layer="),
    ("reshape", "channels_first", "expected a function"),
    ("swaps", "no", "True or False"),
    ("swaps", 1, "True or False"),
    ("regions", {"vlaidation": []}, "did you mean 'validation'"),
    ("regions", [None], "expected a mapping"),
]

TRAINING = [
    ("every_n_epochs", 0, "at least 1"),
    ("every_n_epochs", 1.5, "whole number"),
    ("max_overhead", 0, "share of the training time"),
    ("max_overhead", -0.1, "share of the training time"),
    ("max_overhead", float("nan"), "share of the training time"),
    ("max_overhead", True, "share of the training time"),
    ("max_overhead", "5%", "share of the training time"),
    ("train_dataloader", [1, 2], "expected a DataLoader"),
    ("log_images", "yes", "True or False"),
    ("install_view", None, "True or False"),
    ("on_error", "riase", "did you mean 'raise'"),
    ("on_error", True, "choose warn, raise"),
    ("run_id", 7, "expected a string"),
    ("baseline_run_id", 7, "expected a string"),
    ("tracking_uri", 7, "expected a string"),
]


def refused(name, match):
    return pytest.raises(ValueError, match=f"(?s){name}.*{match}")


@pytest.mark.parametrize(("name", "value", "match"), WRONG + ONE_LAYER)
def test_a_wrong_option_is_refused_by_functions_and_callback_alike(name, value, match):
    for entry in (AnalysisOptions, IntegratedFeatureAnalysis, lambda **o: analyze(None, loader(12), **o), autolog):
        with refused(name, match):
            entry(**{name: value})


@pytest.mark.parametrize(("name", "value", "match"), WRONG)
def test_a_wrong_option_is_refused_for_several_layers(name, value, match):
    with refused(name, match):
        analyze_layers(None, loader(12), layers=["features"], **{name: value})


@pytest.mark.parametrize("layers", ["features", [], [4], None, 3])
def test_layers_are_names(layers):
    with refused("layers", "expected"):
        analyze_layers(None, loader(12), layers=layers)


@pytest.mark.parametrize(("name", "value", "match"), TRAINING)
def test_a_wrong_option_of_the_training_is_refused(name, value, match):
    for entry in (TrainingOptions, IntegratedFeatureAnalysis, autolog):
        with refused(name, match):
            entry(**{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"explain": 0},
        {"explain": "prediction", "cam": "gradcam++"},
        {"cam": lambda A, G: G},
        {"cam": METHODS["scorecam"]},
        {"task": lambda output, target: output[:, 0]},
        {"layer": "features", "reshape": torch.flatten},
        {"metadata": "known.csv"},
        {"metadata": {}, "regions": {"validation": len}},
    ],
)
def test_right_options_are_taken_as_they_are(options):
    found = AnalysisOptions(**options)
    assert {name: getattr(found, name) for name in options} == options


def test_numbers_of_numpy_and_names_of_any_kind_become_pythons_own():
    found = AnalysisOptions(explain=np.int64(2), seed=np.uint8(3), class_names=np.array([0, 1]))
    assert (type(found.explain), type(found.seed)) == (int, int)
    assert found.class_names == ("0", "1")


def test_every_option_is_an_argument_of_analyze_and_of_the_callback_with_the_same_default():
    of_callback = inspect.signature(IntegratedFeatureAnalysis).parameters
    of_analyze = inspect.signature(analyze).parameters
    for kind in (AnalysisOptions, TrainingOptions):
        for name, field in kind.__dataclass_fields__.items():
            assert of_callback[name].default == field.default, name
            if kind is AnalysisOptions:
                assert of_analyze[name].default == field.default, name
    assert set(of_callback) == {*AnalysisOptions.__dataclass_fields__, *TrainingOptions.__dataclass_fields__}


def test_a_class_index_on_the_command_line_is_a_number():
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(IntegratedFeatureAnalysis, "ifa")
    assert [parser.parse_args([f"--ifa.explain={given}"]).ifa.explain for given in ("2", "prediction")] == [
        2,
        "prediction",
    ]


def test_names_are_those_of_the_methods_themselves():
    assert set(CAM_METHODS) == set(METHODS)


def test_options_import_nothing_heavy():
    code = "import sys, lightning_ifa.options; print({'torch', 'pandas', 'numpy', 'mlflow'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
