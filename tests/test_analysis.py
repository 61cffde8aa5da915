"""analyze() from end to end: by hand, over every task, on planted faults, and on bad input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from models import CLASSES, PoolNet, SegmentationNet, SignalNet, Squares, VolumeNet, loader, trained
from torch.utils.data import DataLoader, TensorDataset

from lightning_ifa.analysis import analyze
from lightning_ifa.errors import DataError, FileError, IFAError, MetadataError
from lightning_ifa.indicators.registry import families
from lightning_ifa.report.feature_report import FeatureReport


@pytest.fixture(scope="module")
def model():
    return trained(PoolNet())


@pytest.fixture(scope="module")
def report(model):
    return analyze(model, loader(60, seed=5), loader(90, seed=1))


def test_every_family_reports_finite_numbers(report):
    assert tuple(report.findings) == tuple(families())
    for family in families():
        assert {f"ifa/{family}/score", f"ifa/{family}/z", f"ifa/health/{family}"} <= set(report.metrics)
        assert 0 <= report.metrics[f"ifa/health/{family}"] <= 1
        assert report.metrics[f"ifa/{family}/score"] >= 0
    assert all(np.isfinite(value) for value in report.metrics.values())


def test_values_by_hand(model, report):
    table = report.tables["validation"]
    logits, y = table.logits, table.targets
    train = report.tables["train"]
    gaps = []
    for t in (train, table):
        top = np.sort(t.logits, axis=1)
        own = t.logits[np.arange(len(t)), t.targets]
        gaps.append(own - np.where(own == top[:, -1], top[:, -2], top[:, -1]))
    # least squares with the split as 0/1 and one intercept a class
    label = np.concatenate([train.targets, y])
    design = np.column_stack([np.repeat([1.0, 0.0], [len(train), len(table)]), np.eye(CLASSES)[label]])
    effect = np.linalg.lstsq(design, np.concatenate(gaps), rcond=None)[0][0]
    spread = np.concatenate(
        [
            g[t.targets == k] - g[t.targets == k].mean()
            for g, t in zip(gaps, (train, table), strict=True)
            for k in range(3)
        ]
    )
    expected = effect / np.sqrt((spread**2).sum() / (len(spread) - 2 * CLASSES))
    assert report.metrics["ifa/overfitting/margin_gap"] == pytest.approx(expected, rel=1e-4)
    correct = logits.argmax(1) == y
    matrix = np.array([table.contributions[correct & (y == k)].mean(0) for k in range(CLASSES)])
    np.testing.assert_allclose(report.importance.matrix, matrix, rtol=1e-5)
    np.testing.assert_allclose(
        report.importance.difference, matrix - table.contributions[correct].mean(0), rtol=1e-4, atol=1e-6
    )
    flat = table.cams.reshape(len(table), -1)
    assert report.scale.high == pytest.approx(np.quantile(flat.max(1), 0.9))
    assert report.scale.low == pytest.approx(np.median(flat.min(1)))
    assert report.metrics["ifa/consistency/completeness"] == pytest.approx(1, abs=1e-4)


def test_gaps_are_told_by_class_and_by_feature(report, model):
    classes, features = report.overfitting_classes, report.overfitting_features
    assert sorted(classes["class"]) == [0, 1, 2]
    train, validation = report.tables["train"], report.tables["validation"]
    worst = classes.iloc[0]
    a, b = (np.diff(np.sort(t.logits[t.targets == worst["class"]])[:, -2:])[:, 0] for t in (train, validation))
    if all((t.correct | (t.targets != worst["class"])).all() for t in (train, validation)):
        pooled = np.sqrt((((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / (len(a) + len(b) - 2))
        assert worst["gap"] == pytest.approx((a.mean() - b.mean()) / pooled, rel=1e-4)
    assert len(features) == train.contributions.shape[1]
    assert features["share"].sum() == pytest.approx(1.0)
    alone = analyze(model, loader(60))
    assert alone.overfitting_classes.empty
    assert alone.overfitting_features.empty
    assert list(alone.overfitting_features) == list(features)


def test_same_data_same_report(model, report):
    again = analyze(model, loader(60, seed=5, batch_size=7), loader(90, seed=1, batch_size=25, shuffle=True))
    assert again.metrics == pytest.approx(report.metrics, rel=1e-3, abs=1e-4)
    assert again.digest == report.digest


def test_folder_gives_the_report_back(report, tmp_path):
    report.save(tmp_path / "report")
    found = FeatureReport.load(tmp_path / "report")
    assert found.metrics == report.metrics
    assert found.scale == report.scale
    assert found.class_names == report.class_names
    pd.testing.assert_frame_equal(found.outliers, report.outliers)
    pd.testing.assert_frame_equal(found.confounders, report.confounders)
    np.testing.assert_array_equal(found.importance.difference, report.importance.difference)
    np.testing.assert_array_equal(found.probes.images, report.probes.images)


def test_incomplete_folder(report, tmp_path):
    report.save(tmp_path)
    (tmp_path / "report.json").unlink()
    with pytest.raises(FileError, match=r"report\.json is not there"):
        FeatureReport.load(tmp_path)


def test_without_training_split_overfitting_is_left_out(model):
    report = analyze(model, loader(60))
    assert "overfitting" not in report.findings
    assert set(report.tables) == {"validation"}


def test_augmented_training_inputs_hide_a_gap(model):
    clean = analyze(model, loader(60, seed=5), loader(90, seed=1)).findings["overfitting"]
    augmented = analyze(model, loader(60, seed=5), loader(90, seed=1, augmented=True)).findings["overfitting"]
    assert not clean.undecided
    assert augmented.undecided
    assert "augmented at random" in augmented.note
    assert "margin_gap" in augmented.details


def test_probes_are_the_same_whatever_the_model(model, report):
    other = analyze(PoolNet().eval(), loader(60, seed=5))
    assert other.probes.table.sample_ids.tolist() == report.probes.table.sample_ids.tolist()
    assert sorted(report.probes.table.targets.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_metadata_of_a_planted_confounder():
    torch.manual_seed(0)
    data, held_out = Squares(240, seed=3), Squares(240, seed=4)
    metadata = {}
    for split, squares in (("train", data), ("validation", held_out)):
        tagged = (squares.labels == 2) ^ (torch.rand(240) < 0.15)
        squares.images[tagged, :, :2, -2:] += 3.0
        metadata[split] = pd.DataFrame(
            {"site": np.where(tagged, "A", "B"), "noise": np.random.default_rng(0).random(240)}
        )
    model = PoolNet()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data.images), data.labels).backward()
        optimizer.step()
    loaders = DataLoader(held_out, 32), DataLoader(data, 32)
    report = analyze(model.eval(), *loaders, metadata=metadata)
    assert "confounding" in report.alarms
    candidates = report.confounders.set_index("source")["score"]
    assert candidates["site"] > 0.05 > abs(candidates["noise"])
    assert report.confounders.query("origin != 'content'").iloc[0]["source"] == "site"


@pytest.mark.parametrize("groups", [2, 60])
def test_a_column_called_group_is_what_is_exchanged_and_not_a_candidate(groups):
    """Four samples of a group share class and corner; swaps know their sources' groups, too."""
    data = Squares(240, seed=3)
    order = np.argsort(data.labels.numpy(), kind="stable")
    group = np.empty(240, dtype=np.int64)
    group[order] = np.arange(240) * groups // 240
    site = np.random.default_rng(0).random(groups)[group] < 0.5
    data.images[torch.from_numpy(site), :, :2, -2:] += 3.0
    model = trained(PoolNet())
    seen = []
    for more in ({}, {"group": group}):
        frame = pd.DataFrame({"site": site, **more})
        seen.append(analyze(model, DataLoader(data, 32), metadata={"validation": frame}, swaps=True))
    alone, grouped = (report.confounders.set_index("source") for report in seen)
    assert "60 groups" in grouped.loc["group", "note"] or groups == 2
    assert np.isnan(grouped.loc["group", "score"])
    assert grouped.loc["site", "score"] == alone.loc["site", "score"]
    both = alone.index.intersection(grouped.dropna(subset="score").index)
    assert (grouped.loc[both, "z"].abs() <= alone.loc[both, "z"].abs() + 1e-9).all()
    assert abs(grouped.loc["site", "z"]) < abs(alone.loc["site", "z"])
    assert any("nothing can be significant" in warning for warning in seen[1].warnings) == (groups == 2)


class Cornered(Squares):
    """Squares with a bright corner that goes with the last class, in the share of samples asked for."""

    def __init__(self, n, seed, share):
        super().__init__(n, seed)
        tagged = (self.labels == 2) & (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share)
        self.images[tagged, :, :2, -2:] += 3.0

    def region(self, index):
        mask = np.zeros((12, 12), dtype=bool)
        place = 1 + 3 * int(self.labels[index])
        mask[place : place + 4, place : place + 4] = True
        return mask


def trained_on(data, steps=80):
    torch.manual_seed(0)
    net = PoolNet()
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(data.images), data.labels).backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize(("share", "alarms"), [(0.9, True), (1.0, True), (0.0, False)])
def test_evidence_outside_the_region_is_a_candidate(share, alarms):
    data = Cornered(240, 4, share)
    report = analyze(trained_on(Cornered(240, 3, share)), DataLoader(data, 32))
    assert ("confounding" in report.alarms) == alarms
    row = report.confounders.set_index("source").loc["outside the region"]
    assert row["origin"] == "region"
    assert (row["score"] > 0.1) == alarms
    assert ("moves with what lies outside the region" in row["note"]) == alarms
    assert 0 < report.metrics["ifa/confounding/outside_share"] < report.metrics["ifa/confounding/outside_area"]
    shares = report.samples.set_index("sample_id")["outside"]
    assert [shares[one] for one in row["highest"]] == sorted(shares, reverse=True)[:3]


def test_regions_where_nothing_is_known_say_nothing(model):
    report = analyze(model, loader(60, seed=5), regions={"validation": lambda index: None})
    assert "outside the region" not in set(report.confounders["source"])
    assert report.samples["outside"].isna().all()


TASKS = {
    "binary": (VolumeNet(), torch.randn(40, 1, 5, 6, 7), torch.arange(40) % 2),
    "regression": (SignalNet(), torch.randn(60, 2, 20), torch.randn(60)),
    "multilabel": (PoolNet(), torch.randn(60, 1, 12, 12), torch.eye(3)[torch.arange(60) % 3].roll(1, 0) + 0),
    "segmentation": (SegmentationNet(), torch.randn(30, 1, 8, 8), torch.arange(30)[:, None, None].expand(30, 8, 8) % 3),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_a_report(task):
    torch.manual_seed(0)
    model, x, y = TASKS[task]
    source = DataLoader(TensorDataset(x, y), 16)
    report = analyze(model, source, source, task=task)
    assert report.tables["validation"].task == task
    assert all(np.isfinite(value) for value in report.metrics.values())


def test_any_score_can_be_explained(model):
    report = analyze(model, loader(30), task=lambda output, target: output[:, 0] - output[:, 1])
    assert report.tables["validation"].task == "custom"
    assert report.findings["confounding"].undecided


ONE_CLASS = DataLoader(TensorDataset(torch.randn(9, 1, 12, 12), torch.zeros(9).long()))
ONE_EACH = DataLoader(TensorDataset(torch.randn(3, 1, 12, 12), torch.arange(3)))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"val_loader": ONE_CLASS}, DataError, "shows 1 class "),
        ({"val_loader": ONE_EACH}, DataError, "two classes with two"),
        ({"layer": "feature"}, IFAError, 'did you mean "features"'),
        ({"metadata": {"validation": pd.DataFrame({"site": [1, 2]})}}, MetadataError, "describes 2 samples"),
        ({"regions": {"validation": [np.ones((4, 4), dtype=bool)] * 30}}, DataError, "shape \\(4, 4\\), the model's"),
        ({"class_names": ["a"]}, DataError, "class_names has 1 entries, the model tells 3 classes apart"),
        ({"task": "regression"}, IFAError, 'task "regression" needs'),
        ({"batch_fn": lambda batch: batch[0]}, IFAError, "batch_fn returned"),
    ],
)
def test_bad_input_is_refused(model, change, error, match):
    with pytest.raises(error, match=match):
        analyze(**({"model": model, "val_loader": loader(30), "train_loader": None} | change))


def test_class_with_one_sample_is_left_out_and_named(model):
    squares = Squares(31)
    squares.labels[:] = torch.cat([torch.zeros(15), torch.ones(15), torch.full((1,), 2)]).long()
    report = analyze(model, DataLoader(squares, 8))
    assert report.warnings == (
        "validation: 1 of 3 classes have one sample only and cannot be judged within the class: 2",
    )


def test_many_small_classes_are_pooled_and_named():
    torch.manual_seed(0)
    x, y = torch.randn(1000, 1, 3, 3), torch.arange(1000) % 200

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.maps, self.head = torch.nn.Conv2d(1, 200, 2), torch.nn.Linear(200, 200)

        def forward(self, x):
            return self.head(self.maps(x).mean((2, 3)))

    source = DataLoader(TensorDataset(x, y), 500)
    report = analyze(Wide(), source, DataLoader(TensorDataset(x + 0.1, y), 500))
    assert [w for w in report.warnings if w.startswith("outliers: 200 of 200 classes")]
    assert all(np.isfinite(value) for value in report.metrics.values())


def test_constant_features_and_an_empty_column_do_no_harm():
    x, y = torch.zeros(60, 1, 12, 12), torch.arange(60) % 3
    source = DataLoader(TensorDataset(x, y), 20)
    empty = pd.DataFrame({"age": [np.nan] * 60, "site": [None] * 60})
    report = analyze(PoolNet().eval(), source, source, metadata={"validation": empty, "train": empty})
    assert all(np.isfinite(value) for value in report.metrics.values())
    assert set(report.confounders.set_index("source").loc[["age", "site"], "note"]) == {
        "fewer than two classes have a value"
    }


def test_a_class_missing_from_one_split_is_left_out_of_the_comparison(model):
    train = Squares(90, seed=1)
    train.labels[train.labels == 2] = 1
    report = analyze(model, loader(60, seed=5), DataLoader(train, 30))
    assert sorted(report.overfitting_classes["class"]) == [0, 1]
    assert all(np.isfinite(value) for value in report.metrics.values())


def test_import_is_light_and_names_are_exported():
    code = (
        "import sys, lightning_ifa; assert not {'torch', 'mlflow', 'pytorch_lightning', 'sklearn'} & set(sys.modules);"
        "missing = [n for n in lightning_ifa.__all__ if not hasattr(lightning_ifa, n)]; assert not missing, missing;"
        "assert list(lightning_ifa.__all__) == sorted(lightning_ifa.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
