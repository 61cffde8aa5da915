"""How outputs and labels of every task are read, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_ifa.errors import OutputError
from lightning_ifa.model.output_form import infer_task, output_tensor
from lightning_ifa.model.outputs import explained_class, read_output

N = 4
ROWS = torch.arange(N)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("output", "target", "task"),
    [
        (torch.randn(N, 3), LABELS, "multiclass"),
        (torch.randn(N, 3), LABELS[:, None], "multiclass"),
        (torch.randn(N, 3), LABELS.float(), "multiclass"),
        (torch.randn(N, 3), torch.eye(3)[LABELS], "multiclass"),
        (torch.randn(N, 3), torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1.0]]), "multilabel"),
        (torch.randn(N, 1), torch.tensor([0, 1, 1, 0]), "binary"),
        (torch.randn(N), torch.tensor([0.0, 1, 1, 0]), "binary"),
        (torch.randn(N), torch.tensor([0.3, 1.2, 1, 0]), "regression"),
        (torch.randn(N, 1), torch.tensor([[3], [40], [12], [7]]), "regression"),
        (torch.randn(N, 2), torch.randn(N, 2), "regression"),
        (torch.randn(N, 3), torch.tensor([[0.7, 0.3, 0.0]] * N), "multiclass"),
        (torch.randn(N, 1), torch.tensor([0, 1, 255, -100]), "binary"),
        ((torch.randn(N, 5, 5), torch.randn(N, 3)), LABELS, "multiclass"),
        (torch.randn(N, 3, 5, 5), torch.zeros(N, 5, 5), "segmentation"),
    ],
)
def test_task_is_told_from_shapes(output, target, task):
    assert infer_task(output, target) == task
    readout = read_output(output, target, task, ROWS)
    assert readout.logits.shape[0] == readout.targets.shape[0] == readout.predictions.shape[0] == N


def test_ambiguous_shapes_are_refused_with_their_names():
    with pytest.raises(OutputError, match=r"output \(4, 3\) and target \(4, 2\)"):
        infer_task(torch.randn(N, 3), torch.randn(N, 2))


def test_binary_becomes_two_symmetric_logits():
    z = torch.tensor([2.0, -1.0, 0.5, -3.0])
    readout = read_output(z[:, None], torch.tensor([1, 1, 0, 0]), "binary", ROWS)
    torch.testing.assert_close(readout.logits.softmax(1)[:, 1], z.sigmoid())
    assert readout.predictions.tolist() == [1, 0, 1, 0]


def test_one_of_several_labels_is_chosen_by_the_data_alone():
    target = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]])
    for seed in range(3):
        torch.manual_seed(seed)
        readout = read_output(torch.randn(N, 3), target, "multilabel", ROWS)
        assert readout.targets.tolist() == [0, 1, -1, 2]


def test_segmentation_pools_planes_and_takes_the_largest_foreground_class():
    mask = torch.zeros(N, 4, 4)
    mask[0, :2] = 2
    mask[1, 0, 0] = 1
    scores = torch.randn(N, 3, 4, 4)
    readout = read_output(scores, mask, "segmentation", ROWS)
    assert readout.targets.tolist() == [2, 1, 0, 0]
    torch.testing.assert_close(readout.logits, scores.mean((2, 3)))


def test_explained_class_is_the_label_then_the_prediction():
    logits = torch.eye(3)[torch.tensor([1, 1, 2, 0])]
    readout = read_output(logits, torch.tensor([0, 1, -1, 2]), "multiclass", ROWS)
    assert explained_class(readout, "target").tolist() == [0, 1, 2, 2]
    assert explained_class(readout, "prediction").tolist() == [1, 1, 2, 0]
    assert explained_class(readout, 2).tolist() == [2] * N
    with pytest.raises(OutputError, match="classes 0 to 2"):
        explained_class(readout, 3)


@pytest.mark.parametrize(
    "output",
    [
        torch.ones(2),
        (torch.ones(2), "aux"),
        (None, torch.ones(2)),
        {"prediction": torch.ones(2), "step": 3, "loss": torch.tensor(0.5)},
        {"logits": torch.ones(2), "loss": 0},
        {"out": torch.ones(2), "aux": torch.zeros(2)},
        SimpleNamespace(logits=torch.ones(2)),
    ],
)
def test_output_forms(output):
    assert output_tensor(output).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("output", "match"),
    [
        ({"scores": torch.ones(2).long()}, r"dict with keys \['scores'\]"),
        ("text", "returns a str"),
        ((torch.ones(2, 16), torch.ones(2, 2)), r"\[0\] \(2, 16\), \[1\] \(2, 2\); name the scores by forward_fn"),
        ({"a": torch.ones(2, 3), "b": [torch.ones(2, 3)]}, r"\['a'\] \(2, 3\), \['b'\]\[0\] \(2, 3\)"),
    ],
)
def test_unknown_output_form(output, match):
    with pytest.raises(OutputError, match=match):
        output_tensor(output)


@pytest.mark.parametrize(
    ("task", "output", "target", "match"),
    [
        ("multiclass", torch.randn(N, 1), LABELS, "needs output"),
        ("multiclass", torch.randn(N, 2), LABELS, "label 2 found, but the model tells 2 classes apart"),
        ("multiclass", torch.randn(N, 3), torch.randn(N), "expected one class index"),
        ("binary", torch.randn(N, 3), LABELS, "needs output"),
        ("multilabel", torch.randn(N, 3), LABELS, "needs output and 0/1 target"),
        ("regression", torch.randn(N, 2), torch.randn(N), "needs output"),
        ("regression", torch.randn(N), torch.randn(N, 2), "needs target"),
        ("segmentation", torch.randn(N, 3), LABELS, "needs output"),
        ("segmentation", torch.randn(N, 3, 4, 4), torch.zeros(N, 8, 8), "mask"),
        ("multiclass", torch.randn(3, 3), LABELS, "one row a sample"),
        ("multiclass", torch.full((N, 3), torch.nan), LABELS, "NaN or infinite"),
        ("multiclass", nn.functional.normalize(torch.randn(N, 16)), LABELS, "features that were normalised"),
        ("clustering", torch.randn(N, 3), LABELS, "unknown task 'clustering'"),
        (lambda output, target: output, torch.randn(N, 3), LABELS, "task function returned"),
    ],
)
def test_output_unlike_the_task(task, output, target, match):
    with pytest.raises(OutputError, match=match):
        read_output(output, target, task, ROWS)


def test_labels_to_be_ignored_are_no_labels():
    readout = read_output(torch.randn(N, 3), torch.tensor([0, 255, -100, 2]), "multiclass", ROWS)
    assert readout.targets.tolist() == [0, -1, -1, 2]
    mask = torch.zeros(N, 4, 4, dtype=torch.int64)
    mask[0, :2], mask[0, 2:], mask[1], mask[2, 0] = 255, 1, -100, 1
    readout = read_output(torch.randn(N, 1, 4, 4), mask, "segmentation", ROWS)
    assert readout.targets.tolist() == [1, -1, 1, 0]
    torch.testing.assert_close(readout.object_size, torch.tensor([1, torch.nan, 0.25, 0]), equal_nan=True)


def test_several_regression_outputs_are_explained_by_their_mean():
    output, target = torch.randn(N, 2), torch.randn(N, 2)
    readout = read_output(output, target, "regression", ROWS)
    torch.testing.assert_close(readout.logits[:, 0], output.mean(1))
    torch.testing.assert_close(readout.targets, target.mean(1))
